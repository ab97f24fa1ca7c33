package qcow2

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

var _ blockcore.Resizer = (*Image)(nil)

// Resize changes the length of the disk. The node is drained. The header has the new length last when the disk becomes longer, and what is cut off is
// gone before it has when it becomes shorter: a crash in between leaves the old length.
func (i *Image) Resize(t *blockcore.Task, sizeBytes int64) error {
	if err := i.writable(); err != nil {
		return err
	}
	if err := i.mayResize(sizeBytes); err != nil {
		return err
	}
	old := i.Size()
	err := i.remap(t, old, sizeBytes)
	if err == nil {
		err = i.changeHeader(t, func(h *format.Header) { h.SizeBytes = uint64(sizeBytes) })
	}
	if err != nil {
		i.size.Store(old)
		i.bitmaps.list.Mark(blockcore.Range{Offset: sizeBytes, Length: old - sizeBytes}) // a part of it may be gone
		return fmt.Errorf("qcow2: resize to %d bytes: %w", sizeBytes, blockcore.DuringStep("Failed to update the image size", err))
	}
	i.size.Store(sizeBytes)
	if plan, err := i.options.Caches.plan(i.g, sizeBytes); err == nil {
		i.l2.piecesMax = plan.l2Pieces
	}
	if sizeBytes < old {
		if err := i.dropBlocks(t); err != nil {
			i.warn("qcow2: refcount blocks that count nothing stay, and the file is not cut off: " + err.Error())
		} else {
			i.shrinkFile(t)
		}
		i.cutData(t, sizeBytes)
	}
	return nil
}

// remap has the tables map a disk of another length, on disk too.
func (i *Image) remap(t *blockcore.Task, old, sizeBytes int64) error {
	if i.unmarked {
		if err := i.mark(t); err != nil {
			return err
		}
	}
	if err := i.soilImage(t); err != nil {
		return err
	}
	if sizeBytes >= old {
		if err := i.grow(t, sizeBytes); err != nil {
			return err
		}
		return i.commit(t)
	}
	if err := i.shrink(t, sizeBytes); err != nil {
		return blockcore.DuringStep(croppingFailed, err)
	}
	step := "Failed to discard unused refblocks"
	if len(i.snapshots) > 0 { // with which QEMU writes sooner
		step = croppingFailed
	}
	return blockcore.DuringStep(step, i.commit(t))
}

// croppingFailed is what QEMU says when it cannot take away what is behind the new end of a disk.
const croppingFailed = "Failed to discard cropped clusters"

// cutData cuts an external data file off with the disk. If that cannot be done now it is too long, and what is there is zeroed when the disk becomes longer.
func (i *Image) cutData(t *blockcore.Task, sizeBytes int64) {
	if !i.external {
		return
	}
	e := i.data.Load()
	end := blockcore.Range{Length: sizeBytes}.Widen(e.Node().Limits().Align).Length
	if end >= e.Node().Size() {
		return
	}
	if err := e.Resize(t, end); err != nil {
		i.warn("qcow2: Failed to truncate the external data file: " + err.Error())
	}
}

func (i *Image) mayResize(sizeBytes int64) error {
	switch {
	case sizeBytes%format.SectorBytes != 0:
		return &format.Error{Errno: syscall.EINVAL, Text: fmt.Sprintf("The new size must be a multiple of %d", format.SectorBytes)}
	case i.version < 3 && len(i.snapshots) > 0:
		return &format.Error{Errno: syscall.ENOTSUP, Text: "Can't resize a v2 image which has snapshots"}
	case i.g.L1EntriesFor(uint64(sizeBytes)) > format.L1BytesMax/format.EntryBytes:
		return &format.Error{Errno: syscall.EFBIG, Text: "The new size is too large for the L1 table"}
	}
	for _, b := range i.bitmaps.list.All() { // one that cannot be used cannot follow; those in use by exports do
		if b.Info().Inconsistent {
			return b.Check(blockcore.BitmapChange)
		}
	}
	return nil
}

// grow maps more. What is new reads as zeroes, whatever is in the last cluster, or in a backing image that is longer.
func (i *Image) grow(t *blockcore.Task, sizeBytes int64) error {
	old := i.Size()
	if err := i.growL1(t, int(i.g.L1EntriesFor(uint64(sizeBytes)))); err != nil {
		return blockcore.DuringStep("Failed to grow the L1 table", err)
	}
	if i.externRaw {
		if there := min(i.data.Load().Node().Size(), sizeBytes); there > old {
			if err := i.zeroData(t, format.Host(old), there-old); err != nil {
				return err
			}
		}
		if err := reach(t, i.data.Load(), sizeBytes, 0); err != nil {
			return err
		}
	}
	if err := i.blank(t, old, min(i.inner(blockcore.Range{Length: old}, i.g.ClusterBytes()).Length, sizeBytes)); err != nil {
		return err
	}
	if e := i.backing.Load(); e != nil {
		if err := i.blank(t, old, min(e.Node().Size(), sizeBytes)); err != nil {
			return err
		}
	}
	if i.externRaw {
		return i.mapAll(t, old, sizeBytes)
	}
	return nil
}

// blank has bytes behind the old end of the disk read as zeroes, which they are as soon as the disk is longer.
func (i *Image) blank(t *blockcore.Task, from, to int64) error {
	if from >= to {
		return nil
	}
	old := i.Size()
	i.size.Store(to) // for what a longer backing image has there
	defer i.size.Store(old)
	err := i.WriteZeroes(t, blockcore.Range{Offset: from, Length: to - from}, 0)
	if errors.Is(err, syscall.ENOTSUP) {
		err = i.writeZeroBytes(t, from, to)
	}
	if err == nil {
		err = i.commit(t)
	}
	return blockcore.DuringStep("Failed to zero out new clusters", err)
}

// growL1 moves the L1 table to a place where it can be longer: the new one is on disk before the header refers to it.
func (i *Image) growL1(t *blockcore.Task, entries int) error {
	if entries <= len(i.l1.entries) {
		return nil
	}
	if err := i.commit(t); err != nil {
		return err
	}
	table := make([]uint64, entries)
	copy(table, i.l1.entries)
	r, err := i.allocateTogether(t, i.l1Clusters(entries), "L1 table")
	if err != nil {
		return err
	}
	err = i.writeEntries(t, table, r.host)
	if err == nil {
		err = i.commit(t) // the refcounts; and a sync
	}
	if err == nil {
		err = i.changeHeader(t, func(h *format.Header) { h.L1Offset, h.L1Entries = r.host, uint32(entries) })
	}
	switch {
	case err != nil && i.unsure: // the header may lead there until the next commit
		i.free(freed{first: i.g.Index(r.host), count: r.count, kind: freeOther})
		return err
	case err != nil:
		i.release(t, r)
		return err
	}
	if clusters := i.l1Clusters(len(i.l1.entries)); clusters > 0 {
		i.free(freed{first: i.g.Index(i.l1.at), count: clusters, kind: freeOther})
	}
	i.l1 = newL1Table(table, r.host)
	i.metas.set(metaActiveL1, i.g.Index(r.host), i.g.Index(r.host)+r.count)
	return nil
}

// allocateTogether allocates clusters that have to lie together. Runs that are too short are left out, and given back at the end.
func (i *Image) allocateTogether(t *blockcore.Task, count int64, what string) (run, error) {
	var apart []run
	defer func() { i.release(t, apart...) }()
	var whole run
	for whole.count < count {
		r, err := i.allocate(t, count-whole.count, what)
		if err != nil {
			apart = append(apart, whole)
			return run{}, err
		}
		if whole.count > 0 && r.host == whole.host+i.g.Cluster(whole.count) {
			whole.count += r.count
			whole.blank = whole.blank && r.blank
			continue
		}
		apart = append(apart, whole)
		whole = r
	}
	return whole, nil
}

// mapAll has all clusters of a range refer to the external data file, where they belong.
func (i *Image) mapAll(t *blockcore.Task, from, to int64) error {
	r := i.clustersOf(format.Guest(from), to-from)
	for off := format.Guest(r.Offset); int64(off) < r.End(); {
		n := i.pieceAt(off, r.End()-int64(off))
		if err := i.prepare(t, off, n); err != nil {
			return err
		}
		for end := off + format.Guest(n); off < end; off += format.Guest(i.g.ClusterBytes()) {
			at, err := i.place(t, off)
			if err != nil {
				return err
			}
			piece, err := i.l2.get(t, at.piece)
			if err != nil {
				return err
			}
			i.setEntry(t, piece, at, format.L2Entry{Descriptor: uint64(off) | format.FlagCopied, Bits: i.subclusters(0, format.Guest(i.g.ClusterBytes()))})
		}
		i.unordered = true
	}
	return nil
}

// shrink gives up what is behind the new end: clusters, then L2 tables.
func (i *Image) shrink(t *blockcore.Task, sizeBytes int64) error {
	r := blockcore.Range{Offset: sizeBytes, Length: i.Size() - sizeBytes}
	if r = i.inner(r, i.g.ClusterBytes()); r.Length > 0 {
		if _, err := i.changeEntries(t, r, freeRequest, dropped); err != nil {
			return err
		}
	}
	for index := int(i.g.L1EntriesFor(uint64(sizeBytes))); index < len(i.l1.entries); index++ {
		e := i.l1.entry(index)
		if e == 0 {
			continue
		}
		i.l1.set(index, 0)
		if at := e.Offset(); at != 0 && i.g.InCluster(at) == 0 {
			i.l2.forget(t, at, i.g.ClusterBytes())
			i.metas.remove(i.g.Index(at), metaActiveL2)
			i.free(freed{first: i.g.Index(at), count: 1, kind: freeOther})
		}
	}
	return nil
}

// shrinkFile cuts off what is behind the last cluster in use. If that cannot be done now nothing is lost but space.
func (i *Image) shrinkFile(t *blockcore.Task) {
	last, err := i.lastUsed(t)
	if err == nil {
		err = i.trimTo(t, int64(i.g.Cluster(last+1)))
		// What the file has still may hold anything.
		i.refs.blank = min(i.refs.blank, max(last+1, i.g.Clusters(i.file.Load().Node().Size())))
	}
	if err != nil {
		i.warn("qcow2: Failed to truncate the tail of the image: " + err.Error())
	}
}

// lastUsed finds the last cluster that is used.
func (i *Image) lastUsed(t *blockcore.Task) (int64, error) {
	for index := len(i.refs.table) - 1; index >= 0; index-- {
		block, err := i.refBlock(t, index)
		if err != nil {
			return 0, err
		}
		if block == nil {
			continue
		}
		t.Yield()
		if block, err = i.refBlock(t, index); err != nil {
			return 0, err
		}
		for k := i.g.RefBlockEntries() - 1; k >= 0; k-- {
			if i.g.Refcount(block.bytes, k) != 0 {
				return int64(index)<<i.g.RefBlockBits() + k, nil
			}
		}
	}
	return 0, fmt.Errorf("nothing is in use: %w", syscall.EINVAL)
}
