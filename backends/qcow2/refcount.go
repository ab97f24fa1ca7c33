package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// refcounts are the reference counts of the clusters of the file. Owned by the context.
type refcounts struct {
	table  []uint64         // the refcount table, in memory
	at     format.Host      // where it is on disk
	dirty  map[int]struct{} // sectors of it that have changed since a commit took them
	blocks *cache
	// fresh: there are blocks that were never written, and nothing on disk refers to them.
	fresh bool
	// next: clusters in front of it are in use, those behind perhaps.
	next int64
	// blank: nothing was ever written to clusters from this one on, and they read as zeroes.
	blank    int64
	creating single // makes new blocks and new tables
	writing  single // writes blocks
}

// blockOf tells in which block the refcount of a cluster is, and where in it.
func (i *Image) blockOf(cluster int64) (index int, entry int64) {
	return int(cluster >> i.g.RefBlockBits()), cluster & (i.g.RefBlockEntries() - 1)
}

// refBlock returns the block of an index, nil = there is none and its refcounts are zero.
func (i *Image) refBlock(t *blockcore.Task, index int) (*table, error) {
	if index >= len(i.refs.table) {
		return nil, nil
	}
	at := format.RefTableEntry(i.refs.table[index]).Offset()
	if at == 0 {
		return nil, nil
	}
	if at < 0 || i.g.InCluster(at) != 0 {
		return nil, i.corrupt(t, true, -1, -1, "Refblock offset %s unaligned (reftable index: %s)", hex(at), hex(index))
	}
	return i.refs.blocks.get(t, at)
}

// refcount reads the refcount of a cluster.
func (i *Image) refcount(t *blockcore.Task, cluster int64) (uint64, error) {
	index, entry := i.blockOf(cluster)
	block, err := i.refBlock(t, index)
	if block == nil || err != nil {
		return 0, err
	}
	return i.g.Refcount(block.bytes, entry), nil
}

// lower takes one off the refcounts of clusters, in memory. What nothing refers to on disk may be lowered at any time.
func (i *Image) lower(t *blockcore.Task, f freed) error {
	for c := f.first; c < f.first+f.count; c++ {
		index, entry := i.blockOf(c)
		block, err := i.refBlock(t, index)
		if err != nil {
			return err
		}
		n := uint64(0)
		if block != nil {
			n = i.g.Refcount(block.bytes, entry)
		}
		if n == 0 {
			return fmt.Errorf("qcow2: the refcount of cluster %#x is zero already: %w", i.g.Cluster(c), syscall.EINVAL)
		}
		i.refs.blocks.change(t, block)
		i.g.SetRefcount(block.bytes, entry, n-1)
		if n == 1 {
			i.refs.next = min(i.refs.next, c)
			i.pack.forget(i.g, c, 1)
		}
	}
	return nil
}
