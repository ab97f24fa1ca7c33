package qcow2

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Snapshots lists the internal snapshots, in the order of the table.
func (i *Image) Snapshots(*blockcore.Task) ([]blockcore.Snapshot, error) {
	all := make([]blockcore.Snapshot, len(i.snapshots))
	for k := range i.snapshots {
		s := &i.snapshots[k]
		all[k] = blockcore.Snapshot{
			ID: s.ID, Name: s.Name, Taken: time.Unix(int64(s.Seconds), int64(s.Nanoseconds)), VMClock: time.Duration(s.VMClock),
			VMStateBytes: s.VMStateBytes, DiskBytes: int64(s.DiskBytes),
			Instructions: s.InstructionCount, Counted: s.InstructionCount != format.NoInstructionCount,
		}
	}
	return all, nil
}

// CreateSnapshot keeps the disk as it is now, under a new id. A crash leaves the snapshot or none:
//
//	1  the header says that refcounts are in doubt                        -> sync
//	2  refcounts of all that the disk refers to, one more each;
//	   "may be changed in place" taken off all entries;
//	   a copy of the L1 table, a longer snapshot table                    -> sync
//	3  the header refers to the table, and doubts nothing any more        -> sync
//	4  the old table is free
//
// Clients stand still for it, and each sync takes longer than all the rest. So ExpectSnapshot does step 1 ahead, step 2 is the commit that makes what clients have
// written durable as well, in its order, and step 4 is left to the next commit.
//
// What a crash leaves before step 3 are refcounts that are too high, or not high enough, and flags that are off for no reason: whoever opens the image next to
// write to it, we or QEMU, puts them right because of step 1. Images of version 2 cannot say that: in them refcounts go up before flags are taken off, with a
// sync between the two, and what a crash leaves stays, like that of QEMU.
func (i *Image) CreateSnapshot(t *blockcore.Task, name string, taken time.Time) (id string, err error) {
	if err := i.maySnapshot(); err != nil {
		return "", err
	}
	if len(i.snapshots) >= format.SnapshotsMax {
		return "", fmt.Errorf("qcow2: there are %d snapshots: %w", len(i.snapshots), syscall.EFBIG)
	}
	err = i.counted(t, func() error {
		id = format.NextSnapshotID(i.snapshots)
		return i.createSnapshot(t, format.Snapshot{
			L1Entries: uint32(len(i.l1.entries)), ID: id, Name: name, Seconds: uint32(taken.Unix()), Nanoseconds: uint32(taken.Nanosecond()),
			DiskBytes: i.header.SizeBytes, InstructionCount: format.NoInstructionCount,
		})
	})
	return id, err
}

func (i *Image) createSnapshot(t *blockcore.Task, s format.Snapshot) error {
	if err := i.doubt(t); err != nil {
		return err
	}
	l1 := slices.Clone(i.l1.entries)
	if err := i.hold(t, l1); err != nil {
		i.resettle(t)
		return err
	}
	err := i.settleCopied(t, true)
	var r run
	if err == nil {
		r, err = i.copyL1(t, i.l1.entries)
	}
	if err == nil {
		s.L1Offset = r.host
		if err = i.writeSnapshots(t, append(slices.Clone(i.snapshots), s), false); err != nil {
			i.release(t, r)
		}
	}
	if err == nil {
		return nil
	}
	i.letGo(t, l1, holdsAll)
	i.resettle(t)
	return err
}

// doubtful is the bit that has whoever opens the image next count its references, where there is one.
func (i *Image) doubtful() uint64 {
	if i.version < 3 {
		return 0
	}
	return format.IncompatibleDirty
}

// doubt says in the header, before refcounts and flags are changed apart from each other, that they are not to be relied on.
func (i *Image) doubt(t *blockcore.Task) error {
	if i.doubtful() == 0 || i.header.Has(format.IncompatibleDirty) && !i.headers.busy && !i.unsure {
		return nil
	}
	return i.changeHeader(t, func(h *format.Header) { h.Incompatible |= format.IncompatibleDirty })
}

// ExpectSnapshot has the header say ahead of a snapshot what CreateSnapshot would have it say while clients stand still, or takes that back. What fails is left to
// CreateSnapshot, or to Close.
func (i *Image) ExpectSnapshot(t *blockcore.Task, expected bool) {
	var err error
	switch {
	case i.maySnapshot() != nil || i.unmarked:
	case expected:
		err = i.doubt(t)
	case !i.lazy:
		err = i.cleanImage(t)
	}
	if err != nil {
		i.warn("qcow2: " + err.Error())
	}
}

// copyL1 writes an L1 table to clusters of its own. Nothing refers to it yet.
func (i *Image) copyL1(t *blockcore.Task, entries []uint64) (run, error) {
	r, err := i.allocateTogether(t, i.l1Clusters(len(entries)), "L1 table")
	if err != nil {
		return r, err
	}
	if err := i.writeEntriesIn(t, entries, r.host, i.used(int64(len(entries))*format.EntryBytes)); err != nil {
		i.release(t, r)
		return r, err
	}
	return r, nil
}

// usedAlign is what the lengths of tables are rounded up to that nobody reads behind their end: what most disks write at once. The rest of a cluster need not be
// written, and clients need not wait for it.
const usedAlign = 4096

func (i *Image) used(lengthBytes int64) int64 {
	return min((lengthBytes+usedAlign-1)&^(usedAlign-1), i.g.Clusters(lengthBytes)<<i.g.ClusterBits)
}

// l1Clusters is how many clusters an L1 table has. That of a disk without anything has none, and its place is that of something else: with QEMU, of the
// header.
func (i *Image) l1Clusters(entries int) int64 {
	return i.g.Clusters(int64(entries) * format.EntryBytes)
}

// DeleteSnapshot deletes the snapshot of an id. It is gone from the table before anything is free that it has.
func (i *Image) DeleteSnapshot(t *blockcore.Task, id string) error {
	if err := i.maySnapshot(); err != nil {
		return err
	}
	k := slices.IndexFunc(i.snapshots, func(s format.Snapshot) bool { return s.ID == id })
	if k < 0 {
		return fmt.Errorf("qcow2: no snapshot has the id '%s': %w", id, syscall.ENOENT)
	}
	err := i.settled(t, func() error {
		gone := i.snapshots[k]
		if err := gone.Check(i.g); err != nil {
			return err
		}
		l1, err := i.snapshotL1(t, &gone)
		if err != nil {
			return blockcore.DuringStep(freeingFailed, err)
		}
		if err := i.writeSnapshots(t, slices.Delete(slices.Clone(i.snapshots), k, k+1), true); err != nil {
			return err
		}
		i.free(freed{first: i.g.Index(gone.L1Offset), count: i.l1Clusters(len(l1)), kind: freeSnapshot})
		if err := i.giveUp(t, l1, freeSnapshot); err != nil {
			i.modest = true
			return blockcore.DuringStep(freeingFailed, err)
		}
		return blockcore.DuringStep("Failed to update snapshot status in disk", i.resettleErr(t))
	})
	if _, said := errors.AsType[*format.Error](err); said {
		return err
	}
	return blockcore.DuringStep("Failed to remove snapshot from snapshot list", err)
}

// freeingFailed is what QEMU says when a snapshot is gone, or could be, and what it has is not free.
const freeingFailed = "Failed to free the cluster and L1 table"

// resettleErr has the flags agree with the refcounts when what was freed is counted, and the header doubt nothing any more.
func (i *Image) resettleErr(t *blockcore.Task) error {
	i.modest = true
	err := i.settle(t)
	if err == nil {
		err = i.settleCopied(t, false)
	}
	if err == nil {
		err = i.commit(t)
	}
	if err != nil {
		return err
	}
	i.modest = false
	return i.cleanImage(t)
}

// resettle is resettleErr where an error costs copies and no more.
func (i *Image) resettle(t *blockcore.Task) {
	if err := i.resettleErr(t); err != nil {
		i.warn("qcow2: " + err.Error())
	}
}

// maySnapshot refuses what the format cannot do.
func (i *Image) maySnapshot() error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.external {
		return fmt.Errorf("qcow2: images with an external data file have no internal snapshots: %w", syscall.ENOTSUP)
	}
	return nil
}

// settled is counted on an image that is as it is on disk.
func (i *Image) settled(t *blockcore.Task, fn func() error) error {
	return i.counted(t, func() error {
		if err := i.settle(t); err != nil {
			return err
		}
		return fn()
	})
}

// counted runs fn on an image whose refcounts go to disk with every commit, lazy or not. Nothing is in flight.
func (i *Image) counted(t *blockcore.Task, fn func() error) error {
	if i.unmarked {
		if err := i.mark(t); err != nil {
			return err
		}
	}
	lazy := i.lazy
	i.lazy = false
	defer func() { i.lazy = lazy }()
	return fn()
}

// snapshotL1 reads the L1 table of a snapshot.
func (i *Image) snapshotL1(t *blockcore.Task, s *format.Snapshot) ([]uint64, error) {
	if err := s.Check(i.g); err != nil {
		return nil, err
	}
	return readEntries(t, i.file.Load(), s.L1Offset, int(s.L1Entries))
}

// writeSnapshots writes another snapshot table and then the header that refers to it, and says whether refcounts are in doubt from then on. The old table is free
// with the next commit.
func (i *Image) writeSnapshots(t *blockcore.Task, all []format.Snapshot, doubt bool) error {
	table, err := format.MarshalSnapshots(all)
	if err != nil {
		return err
	}
	old, err := format.MarshalSnapshots(i.snapshots)
	if err != nil {
		return err
	}
	var r run
	if len(table) > 0 {
		if r, err = i.allocateTogether(t, i.g.Clusters(int64(len(table))), "snapshot table"); err != nil {
			return err
		}
		err = i.writeWhole(t, table, r.host)
	}
	if err == nil {
		err = i.commit(t)
	}
	oldAt := i.header.SnapshotsOffset
	if err == nil {
		err = i.changeHeader(t, func(h *format.Header) {
			h.SnapshotsOffset, h.Snapshots = r.host, uint32(len(all))
			h.Incompatible &^= format.IncompatibleDirty
			if doubt {
				h.Incompatible |= i.doubtful()
			}
		})
	}
	if err != nil {
		if r.count > 0 {
			i.release(t, r)
		}
		return err
	}
	if len(i.snapshots) > 0 {
		i.free(freed{first: i.g.Index(oldAt), count: i.g.Clusters(int64(len(old))), kind: freeSnapshot})
	}
	i.snapshots = all
	i.noteMetadata(t)
	return nil
}

// writeWhole writes bytes to clusters that nothing refers to yet.
func (i *Image) writeWhole(t *blockcore.Task, p []byte, at format.Host) error {
	end := i.used(int64(len(p)))
	buf := t.Buffers().Get(int(min(end, pieceBytes)))
	defer t.Buffers().Put(buf)
	for done := int64(0); done < end; done += int64(len(buf)) {
		piece := buf[:min(int64(len(buf)), end-done)]
		clear(piece[copy(piece, p[min(done, int64(len(p))):]):])
		if err := i.writeMeta(t, piece, at+format.Host(done), metaNone); err != nil {
			return err
		}
	}
	return nil
}

// noteMetadata looks again for what must not be written over.
func (i *Image) noteMetadata(t *blockcore.Task) {
	m, err := i.findMetadata(t, i.options)
	if err != nil {
		i.warn("qcow2: " + err.Error()) // only the L2 tables of snapshots are missing
	}
	i.metas = m
}
