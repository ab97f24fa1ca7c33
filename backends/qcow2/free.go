package qcow2

import (
	"cmp"
	"fmt"

	"nbd-dataplane/blockcore"
)

// freeKind says why clusters were freed: what becomes of them in the file is an option for each.
type freeKind uint8

const (
	freeRequest  freeKind = iota // by a discard, or zeroes that may unmap
	freeSnapshot                 // with a snapshot
	freeOther                    // replaced
	freeKinds
)

// freed is clusters that lost a reference.
type freed struct {
	first, count int64 // numbers of clusters
	kind         freeKind
}

// pendingMax is how many runs of freed clusters may wait for a commit: more, and one is made for them.
const pendingMax = 16384

// free gives up a reference to clusters that what is on disk still has. They are free when the next commit has written
// what took the reference away.
func (i *Image) free(f freed) {
	if f.count == 0 {
		return
	}
	c := &i.commits
	if last := len(c.pending) - 1; last >= 0 {
		if p := &c.pending[last]; p.kind == f.kind && p.first+p.count == f.first {
			p.count += f.count
			return
		}
	}
	c.pending = append(c.pending, f)
}

// freeTooMany makes a commit when too much waits for one.
func (i *Image) freeTooMany(t *blockcore.Task) error {
	if len(i.commits.pending) < pendingMax {
		return nil
	}
	return i.commit(t)
}

// reclaim lowers the refcounts of what nobody can be using any more. However much of it fails, it is said once.
func (i *Image) reclaim(t *blockcore.Task) {
	var failed error
	times := 0
	for _, f := range i.grace.ripe() {
		i.pack.forget(i.g, f.first, f.count) // it may be discarded below, and nobody may come to share it meanwhile
		if i.passes[f.kind] {
			i.discardBelow(t, f)
		}
		if err := i.lower(t, f); err != nil {
			failed = cmp.Or(failed, err)
			times++
		}
	}
	switch {
	case times == 1:
		i.warn("qcow2_free_clusters failed: " + failed.Error())
	case times > 1:
		i.warn(fmt.Sprintf("qcow2_free_clusters failed %d times: %v", times, failed))
	}
}

// discardBelow hands clusters down that are about to be free. They cannot be allocated before that is done. What fails only costs space.
func (i *Image) discardBelow(t *blockcore.Task, f freed) {
	from, end := f.first, f.first+f.count
	for c := f.first; c <= end; c++ {
		if c < end {
			n, err := i.refcount(t, c)
			if err != nil {
				return
			}
			if n == 1 {
				continue
			}
		}
		e := i.file.Load()
		r := blockcore.Range{Offset: int64(i.g.Cluster(from)), Length: (c - from) << i.g.ClusterBits}
		if r.Length = min(r.Length, e.Node().Size()-r.Offset); r.Length > 0 {
			_ = e.Discard(t, r, false)
		}
		from = c + 1
	}
}
