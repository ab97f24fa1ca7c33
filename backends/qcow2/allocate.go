package qcow2

import (
	"cmp"
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// run is clusters in the file that were allocated together.
type run struct {
	host  format.Host
	count int64
	blank bool // nothing was ever written there: it reads as zeroes
}

// dataCluster is what clusters for guest data are for.
const dataCluster = "data cluster"

// allocate finds at least one and at most want free clusters that lie together, and counts them as used: in memory, which reaches
// the disk before anything that refers to them. what is what they are for, in QEMU's words.
func (i *Image) allocate(t *blockcore.Task, want int64, what string) (run, error) {
	for {
		if err := i.writable(); err != nil {
			return run{}, err
		}
		index, from := i.blockOf(i.refs.next)
		block, err := i.ownBlock(t, index)
		if err != nil {
			return run{}, i.noSpace(err)
		}
		now, from := i.blockOf(i.refs.next) // others may have been here meanwhile
		if now != index {
			continue
		}
		first := i.firstFree(block, from)
		if first < 0 {
			i.refs.next = int64(index+1) << i.g.RefBlockBits()
			t.Yield() // a table of strangers may have a million blocks in which nothing is free
			continue
		}
		return i.claim(t, block, index, first, want, what)
	}
}

// firstFree finds a refcount of zero in a block, or returns -1.
func (i *Image) firstFree(block *table, from int64) int64 {
	for k := from; k < i.g.RefBlockEntries(); k++ {
		if i.g.Refcount(block.bytes, k) == 0 {
			return k
		}
	}
	return -1
}

// claim counts a run as used, from the free cluster at entry first of a block on.
func (i *Image) claim(t *blockcore.Task, block *table, index int, first, want int64, what string) (run, error) {
	base := int64(index) << i.g.RefBlockBits()
	cluster := base + first
	if cluster == 0 {
		if what == dataCluster { // QEMU finds out when it writes there
			if err := i.checkOverlap(t, 0, want<<i.g.ClusterBits, metaNone); err != nil {
				return run{}, err
			}
		}
		return run{}, i.corrupt(t, true, 0, want<<i.g.ClusterBits, "Preventing invalid allocation of %s at offset 0", what)
	}
	if end := i.g.Cluster(cluster + want); end > format.HostMax || end < 0 {
		return run{}, fmt.Errorf("qcow2: the image has no more clusters below %#x: %w", format.HostMax, syscall.EFBIG)
	}
	blank := cluster >= i.refs.blank
	limit := min(first+want, i.g.RefBlockEntries())
	if !blank {
		limit = min(limit, max(i.refs.blank-base, first+1))
	}
	i.refs.blocks.change(t, block)
	end := first
	for end < limit && i.g.Refcount(block.bytes, end) == 0 {
		i.g.SetRefcount(block.bytes, end, 1)
		end++
	}
	i.refs.next = base + end
	i.refs.blank = max(i.refs.blank, base+end)
	return run{host: i.g.Cluster(cluster), count: end - first, blank: blank}, nil
}

// noSpace puts errors in the words of their cause.
func (i *Image) noSpace(err error) error {
	return fmt.Errorf("qcow2: allocate clusters: %w", err)
}

// release takes back what was allocated and is referred to nowhere. Nothing is in flight to it. However many runs are lost, it is said once.
func (i *Image) release(t *blockcore.Task, runs ...run) {
	var failed error
	lost := int64(0)
	for _, r := range runs {
		if err := i.lower(t, freed{first: i.g.Index(r.host), count: r.count}); err != nil {
			lost += r.count
			failed = cmp.Or(failed, err)
		}
	}
	if failed != nil {
		i.warn(fmt.Sprintf("qcow2: clusters are lost until the image is checked, up to %d of them: %v", lost, failed))
	}
}
