package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// dropBlocks gives up refcount blocks that count nothing but themselves, when a disk has become shorter. Nothing is in flight. The table does without them on disk
// first; it stays as long as it is, as with QEMU. If that fails nothing is lost but space.
func (i *Image) dropBlocks(t *blockcore.Task) error {
	if i.lazy {
		return nil // the table is behind until Close
	}
	if err := i.settle(t); err != nil { // blocks are on disk, and count what was freed
		return err
	}
	var gone []int
	for index := range i.refs.table {
		idle, err := i.idleBlock(t, index)
		if err != nil {
			return err
		}
		if idle {
			gone = append(gone, index)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	before := i.setBlocks(gone, make([]uint64, len(gone)))
	if err := i.commit(t); err != nil {
		i.setBlocks(gone, before) // they are on disk as they were
		return err
	}
	for k, index := range gone {
		at := format.RefTableEntry(before[k]).Offset()
		i.refs.blocks.forget(t, at, i.g.ClusterBytes())
		i.metas.remove(i.g.Index(at), metaRefBlock)
		if home, _ := i.blockOf(i.g.Index(at)); home == index {
			i.refs.next = min(i.refs.next, i.g.Index(at)) // it counted itself
		} else {
			i.free(freed{first: i.g.Index(at), count: 1, kind: freeOther})
		}
	}
	return i.settle(t)
}

// setBlocks changes entries of the refcount table, in memory, and returns what they were.
func (i *Image) setBlocks(indices []int, entries []uint64) (before []uint64) {
	for k, index := range indices {
		before = append(before, i.refs.table[index])
		i.refs.table[index] = entries[k]
		i.refs.dirty[index/entriesPerSector] = struct{}{}
	}
	return before
}

// idleBlock reports whether there is a block of an index, and all that it counts is itself.
func (i *Image) idleBlock(t *blockcore.Task, index int) (bool, error) {
	block, err := i.refBlock(t, index)
	if block == nil || err != nil {
		return false, err
	}
	t.Yield()
	if block, err = i.refBlock(t, index); block == nil || err != nil {
		return false, err
	}
	home, own := i.blockOf(i.g.Index(block.at))
	if home >= len(i.refs.table) || i.refs.table[home] == 0 {
		return false, i.corrupt(t, true, int64(block.at), i.g.ClusterBytes(), "Refblock at %s is not covered by the refcount structures", hex(block.at))
	}
	for k := range i.g.RefBlockEntries() {
		if n := i.g.Refcount(block.bytes, k); n != 0 && (n != 1 || home != index || k != own) {
			return false, nil
		}
	}
	return true, nil
}
