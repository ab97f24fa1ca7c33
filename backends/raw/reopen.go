package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// PrepareReopen opens the same file in another way; options are Options, complete ones. What cannot be changed: which file it is, and
// whether it is locked at all. The guard of a format that was guessed stays.
//
// Locks are taken before anything is given back, so nobody comes in between: until the change stands, or does not, the file has those
// of both openings.
//
// A sync that failed is forgotten with the old file description: to reopen is to say that it is known what may be lost. So nothing
// is flushed after one. Otherwise a flush must succeed first, or, where the file can be flushed afterwards too, follows at once when clients go
// on: they do not wait for the disk (see former).
func (f *File) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	o, ok := options.(Options)
	if !ok {
		return nil, nil, fmt.Errorf("%T are no options of a file: %w", options, unix.EINVAL)
	}
	o.Guard, o.RequireAlign512, o.CreateBytes = f.guard, f.options.RequireAlign512, 0
	if o.Warn == nil {
		o.Warn = f.options.Warn
	}
	if err := f.mayReopen(&o); err != nil {
		return nil, nil, err
	}
	later := f.syncsLater(&o)
	if f.damaged.Load() == nil && !later {
		if err := f.Flush(t); err != nil {
			return nil, nil, err
		}
	}
	var next opened
	var sizeBytes int64
	err = t.Block(func() (err error) {
		next, sizeBytes, err = f.openAgain(&o)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	before, beforeBytes, damage := f.opened, f.size.Load(), f.damaged.Load()
	f.become(next, sizeBytes, nil)
	commit = func(t *blockcore.Task) { f.retire(t, before, later) }
	abort = func(t *blockcore.Task) {
		f.become(before, beforeBytes, damage)
		f.drop(t, next)
	}
	return commit, abort, nil
}

// OptionsFor returns the options that hold, with the right to write. That is not given up: nobody writes to a node that is read-only, its locks are
// others then (PrepareLocks), and clients wait while a file is opened. It implements blockcore.AccessChanger.
func (f *File) OptionsFor(readOnly bool) any {
	if readOnly || !f.readOnly {
		return nil
	}
	o := f.options
	o.ReadOnly = false
	return o
}

// mayReopen refuses what contradicts itself and what is fixed.
func (f *File) mayReopen(o *Options) error {
	if err := o.check(); err != nil {
		return err
	}
	for _, option := range []struct {
		name    string
		changes bool
	}{
		{"filename", o.Path != f.path},
		{"locking", o.Locking != f.options.Locking},
		{"force-share", o.ForceShare != f.options.ForceShare},
	} {
		if option.changes {
			return fmt.Errorf("Cannot change the option '%s': %w", option.name, unix.EINVAL)
		}
	}
	return nil
}

// openAgain opens the file and locks what is to be locked besides. By a worker.
func (f *File) openAgain(o *Options) (next opened, sizeBytes int64, err error) {
	fd, err := f.openSame(o)
	if err != nil {
		return next, 0, explain(o, err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	forgetAccess(fd)
	d, err := inspect(fd)
	if err != nil {
		return next, 0, err
	}
	if d.sizeBytes < f.eof {
		return next, 0, fmt.Errorf("the file has become shorter, from %d to %d bytes; resize the disk first: %w", f.eof, d.sizeBytes, unix.EINVAL)
	}
	w, err := placeWindow(o, fd, d)
	if err != nil {
		return next, 0, err
	}
	next = newOpened(o, fd, d, w)
	if f.lockFD < 0 {
		return next, w.sizeBytes, nil
	}
	next.locks = f.locksFor(o)
	return next, w.sizeBytes, widenLocks(kernelLocks{}, f.lockFD, f.path, f.locks, next.locks)
}

// openSame opens the file that is open already, whatever its path means now.
func (f *File) openSame(o *Options) (int, error) {
	fd, err := openRetry(fmt.Sprintf("/proc/self/fd/%d", f.fd), openFlags(o))
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	if fd, err = openRetry(f.path, openFlags(o)); err != nil {
		return -1, err
	}
	var was, is unix.Stat_t
	if err = errors.Join(unix.Fstat(f.fd, &was), unix.Fstat(fd, &is)); err == nil && (was.Dev != is.Dev || was.Ino != is.Ino) {
		err = fmt.Errorf("there is another file at this path now: %w", unix.ESTALE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// become exchanges how the file is opened.
func (f *File) become(o opened, sizeBytes int64, damage *syncFailure) {
	f.opened = o
	f.size.Store(sizeBytes)
	f.damaged.Store(damage)
	f.data.forget()
}

// drop gives up an opening that is not used any more, and the locks that only it had.
func (f *File) drop(t *blockcore.Task, o opened) {
	views := o.views.takeAll()
	_ = t.Block(func() error {
		f.unlock(o)
		return o.close(views)
	})
}

// unlock gives back what only o had locked.
func (f *File) unlock(o opened) {
	if f.lockFD >= 0 {
		narrowLocks(kernelLocks{}, f.lockFD, o.locks, f.locks)
	}
}

func (o *opened) close(views []*view) error {
	closeViews(views)
	return unix.Close(o.fd)
}
