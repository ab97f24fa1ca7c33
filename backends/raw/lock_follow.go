package raw

import "nbd-dataplane/internal/imagelock"

// locksFor returns what is locked with options o, given what stands on the file.
func (f *File) locksFor(o *Options) imagelock.Set {
	if !f.onlyRead {
		return o.locks()
	}
	reads := *o
	reads.ReadOnly = true
	return reads.locks()
}

// PrepareLocks implements blockcore.Locker: a file that is open for writing and is only read is locked as one that is read. In the end a lock is a
// system call that does not wait, but for a file system on a network.
//
// INVARIANT: where a reopen in the same change is undone too, its former opening has nothing locked that is given back here.
func (f *File) PrepareLocks(onlyRead bool) (commit, abort func(), err error) {
	if onlyRead == f.onlyRead {
		return nil, nil, nil
	}
	before := f.locks
	f.onlyRead = onlyRead
	undo := func() { f.onlyRead = !onlyRead }
	after := f.locksFor(&f.options)
	if f.lockFD < 0 || after == before {
		return func() {}, undo, nil
	}
	if err := widenLocks(kernelLocks{}, f.lockFD, f.path, before, after); err != nil {
		undo()
		return nil, nil, err
	}
	f.locks = after
	commit = func() { narrowLocks(kernelLocks{}, f.lockFD, before, after) }
	abort = func() {
		undo()
		f.locks = before
		narrowLocks(kernelLocks{}, f.lockFD, after, before)
	}
	return commit, abort, nil
}
