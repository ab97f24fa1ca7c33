package nfs

import (
	"fmt"
	"time"

	"nbd-dataplane/blockcore"
)

// Changes are the options that a file which is open takes over.
type Changes struct {
	// Timeout is Options.Timeout.
	Timeout time.Duration
	// ReadOnly is that the node is read-only: the file needs no locks of a writer. It is heeded in a drained section only.
	ReadOnly bool
}

var _ blockcore.Reopener = (*File)(nil)

// PrepareReopen takes Changes over.
func (f *File) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(t *blockcore.Task), err error) {
	o := options.(Changes)
	f.enter(t)
	before := f.onlyRead
	after := o.ReadOnly && !f.readOnly
	if err := f.prepareAccess(t, after); err != nil {
		return nil, nil, fmt.Errorf("reopen %s: %w", f.url, err)
	}
	commit = func(*blockcore.Task) {
		f.timeout.Store(int64(o.Timeout))
		f.heedTimeout()
		f.access(after)
	}
	return commit, func(*blockcore.Task) { f.access(before) }, nil
}

// prepareAccess makes sure that the file can be locked otherwise: as one that is only read when nothing is left to be written, as one that is written to when its locks are
// there.
func (f *File) prepareAccess(t *blockcore.Task, onlyRead bool) error {
	if f.nlm == nil || onlyRead == f.onlyRead {
		return nil
	}
	if !onlyRead {
		return t.Block(func() error { return f.nlm.widen(false) })
	}
	return f.settleAll(t)
}

// settleAll waits until the file has nothing left to write. What comes of a WRITE that was given up is held, so its end comes before the last COMMIT.
func (f *File) settleAll(t *blockcore.Task) error {
	lock, err := f.awaitLimbo(t)
	if err != nil {
		return err
	}
	f.locks.Release(lock)
	since := time.Duration(0)
	for f.committing {
		if err := f.wait(t, &f.settlers, &since); err != nil {
			return err
		}
	}
	return f.settle(t, f.held.seq)
}

// access has the file locked as one that is only read, or as it was opened, by no more than that.
func (f *File) access(onlyRead bool) {
	f.onlyRead = onlyRead
	f.nlm.narrow(onlyRead)
}

// Change takes Changes over at any moment, also for the calls that are in flight: those that have waited longer fail, which is how requests are
// got rid of that wait for a server that will not come back. No drain is needed, which would wait for them. The file is in a graph. Safe from anywhere.
func (f *File) Change(o Changes) {
	f.timeout.Store(int64(o.Timeout)) // who asks next is told of it
	f.tellTimeout()
}

func (f *File) tellTimeout() {
	loop := f.node.Context()
	loop.Post(func() {
		if f.node.Context() != loop {
			f.tellTimeout() // it has moved meanwhile
			return
		}
		f.heedTimeout()
	})
}

// Timeout returns how long a request waits for the server; 0 = for ever. Safe from anywhere.
func (f *File) Timeout() time.Duration { return time.Duration(f.timeout.Load()) }

// SetTimeout is Change for who knows nothing of NFS. Safe from anywhere.
func (f *File) SetTimeout(d time.Duration) { f.Change(Changes{Timeout: d}) }

// heedTimeout has calls that are in flight wait as long as calls do now. On the loop.
func (f *File) heedTimeout() {
	d := f.Timeout()
	for _, k := range f.calls.all {
		switch {
		case k.state == callFree, k.group.limbo:
		case d == 0:
			k.deadline = 0
		default:
			k.deadline = k.since + d
		}
	}
	if f.watch != nil {
		f.watch.Stop()
		f.watch = nil
		f.keepWatch()
	}
}
