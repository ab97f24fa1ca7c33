package qcow2

import (
	"fmt"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// ApplySnapshot makes the disk what it was when the snapshot of an id was taken, its size too; the snapshot stays. A crash leaves the one disk or the
// other: the snapshot's L1 table is copied, and the header turns to the copy and to the size with one sector.
func (i *Image) ApplySnapshot(t *blockcore.Task, id string) error {
	if err := i.maySnapshot(); err != nil {
		return err
	}
	k := slices.IndexFunc(i.snapshots, func(s format.Snapshot) bool { return s.ID == id })
	switch {
	case k < 0:
		return fmt.Errorf("qcow2: no snapshot has the id '%s': %w", id, syscall.ENOENT)
	case len(i.bitmaps.list.All()) > 0: // in which nobody would mark what changes
		return &format.Error{Errno: syscall.ENOTSUP, Text: "Device has active dirty bitmaps"}
	}
	return i.settled(t, func() error {
		s := i.snapshots[k]
		l1, err := i.snapshotL1(t, &s)
		if err != nil {
			return err
		}
		need := i.g.L1EntriesFor(s.DiskBytes)
		if need > format.L1BytesMax/format.EntryBytes {
			return &format.Error{Errno: syscall.EFBIG, Text: "Snapshot L1 table too large"}
		}
		if more := int(need) - len(l1); more > 0 {
			l1 = append(l1, make([]uint64, more)...)
		}
		return i.applySnapshot(t, l1, s.DiskBytes)
	})
}

func (i *Image) applySnapshot(t *blockcore.Task, l1 []uint64, diskBytes uint64) error {
	for k := range l1 {
		l1[k] &^= format.FlagCopied
	}
	if err := i.doubt(t); err != nil {
		return err
	}
	if err := i.hold(t, l1); err != nil {
		i.resettle(t)
		return err
	}
	var r run
	err := i.commit(t)
	if err == nil {
		err = i.clearInactive(t, l1)
	}
	if err == nil {
		r, err = i.copyL1(t, l1)
	}
	if err == nil {
		if err = i.commit(t); err == nil {
			err = i.changeHeader(t, func(h *format.Header) { h.L1Offset, h.L1Entries, h.SizeBytes = r.host, uint32(len(l1)), diskBytes })
		}
		if err != nil {
			i.release(t, r)
		}
	}
	if err != nil {
		i.letGo(t, l1, holdsAll)
		i.resettle(t)
		return err
	}
	return i.becomeSnapshot(t, newL1Table(l1, r.host), int64(diskBytes))
}

// becomeSnapshot switches to an L1 table that the header on disk refers to, and gives up the old one. Whatever fails here, the disk is what it was then.
func (i *Image) becomeSnapshot(t *blockcore.Task, l1 l1Table, diskBytes int64) error {
	old := i.l1
	i.l1 = l1
	i.size.Store(diskBytes &^ (format.SectorBytes - 1))
	i.l2.dropAll(t)
	i.inflate = inflater{}
	if plan, err := i.options.Caches.plan(i.g, diskBytes); err == nil {
		i.l2.piecesMax = plan.l2Pieces
	}
	i.noteMetadata(t)
	i.free(freed{first: i.g.Index(old.at), count: i.l1Clusters(len(old.entries)), kind: freeOther})
	if err := i.giveUp(t, old.entries, freeOther); err != nil {
		i.warn("qcow2: clusters are lost until the image is checked: " + err.Error())
	}
	i.resettle(t)
	return nil
}

// clearInactive takes flags off the L2 tables of a snapshot, where nobody is obliged to keep them right, before they become active: what they refer to
// is shared.
func (i *Image) clearInactive(t *blockcore.Task, l1 []uint64) error {
	buf := t.Buffers().Get(int(min(i.g.ClusterBytes(), pieceBytes)))
	defer t.Buffers().Put(buf)
	i.l2.dropAll(t)
	for k := range l1 {
		at := format.L1Entry(l1[k]).Offset()
		for done := format.Host(0); at != 0 && int64(done) < i.g.ClusterBytes(); done += format.Host(len(buf)) {
			if err := readHost(t, i.file.Load(), buf, at+done); err != nil {
				return err
			}
			changed, err := i.settleEntries(t, buf, true)
			if err != nil {
				return err
			}
			if !changed {
				continue
			}
			if err := i.writeMeta(t, buf, at+done, metaActiveL2|metaInactiveL2); err != nil {
				return err
			}
		}
		t.Yield()
	}
	return nil
}
