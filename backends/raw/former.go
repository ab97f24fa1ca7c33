package raw

import (
	"errors"

	"nbd-dataplane/blockcore"
)

// former is an opening that a reopen has replaced, and that is given up when clients go on: to unmap and to close a file, and to
// wait for the disk, takes longer than all the rest of a reopen.
//
// What was written before the reopen is made durable through the old file description, which alone is told of all errors since it was opened: the new one
// does not hear of those that somebody else has been told of already. The sync is one of those that run (see syncs) from the moment in
// which the new opening is used.
//
// INVARIANT: no sync is acknowledged before that one has succeeded. Who is about to wait for it begins it, if nobody has: the node
// may be quiet, and then nobody else does.
type former struct {
	// Immutable.
	opened
	gone []*view // its part of the mapping

	// Owned by the context.
	sync *syncing // that is to be, or runs; nil = none
	runs bool     // sync has begun
}

// SetNode remembers whose work giving up is. It implements blockcore.Adopter.
func (f *File) SetNode(n *blockcore.Node) { f.node = n }

// syncsLater reports whether a flush after the reopen does as well as one before: it is one then, and nothing that was lost is forgotten.
func (f *File) syncsLater(next *Options) bool {
	return f.node != nil && f.damaged.Load() == nil && !f.readOnly && !f.syncless && !next.ReadOnly && !next.Cache.NoFlush
}

// retire has o given up when no section covers the file any more. Its locks go at once: others may wait for them.
func (f *File) retire(t *blockcore.Task, o opened, syncs bool) {
	if f.node == nil {
		f.drop(t, o)
		return
	}
	r := &former{opened: o, gone: o.views.takeAll()}
	if syncs {
		r.sync = f.syncs.begin()
	}
	if o.locks != f.locks {
		_ = t.Block(func() error { f.unlock(o); return nil })
	}
	f.formers = append(f.formers, r)
	if f.retiring == nil {
		f.retiring = f.node.NewChore(blockcore.ChorePostpone, f.giveUp)
	}
	f.retiring.After(0)
}

// syncFormers begins the syncs that were put off.
func (f *File) syncFormers(t *blockcore.Task) {
	for i := 0; i < len(f.formers); i++ { // there may be more after a sync
		r := f.formers[i]
		if r.sync == nil || r.runs {
			continue
		}
		r.runs = true
		if err := f.system.sync(t, r.fd); err != nil {
			_ = f.syncFailed("flush of what was written before reopening", err) // every flush says so from now on
		}
		f.syncs.end(r.sync)
	}
}

// settleSyncs waits for all syncs that run or were put off.
func (f *File) settleSyncs(t *blockcore.Task) {
	f.syncFormers(t)
	f.syncs.settle(t)
}

// giveUp is the chore that ends former openings.
func (f *File) giveUp(t *blockcore.Task) {
	f.settleSyncs(t)
	formers := f.formers
	f.formers = nil
	_ = t.Block(func() error { return closeFormers(formers) })
}

// closeFormers is for a worker.
func closeFormers(all []*former) error {
	var errs []error
	for _, r := range all {
		errs = append(errs, r.close(r.gone))
	}
	return errors.Join(errs...)
}
