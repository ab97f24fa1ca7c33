package nfs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
)

// LockLostError says that a lock was lost, and somebody else has the file: nothing is written any more.
type LockLostError struct{ Err error }

func (e *LockLostError) Error() string {
	return fmt.Sprintf("the lock of the file was lost at the server, and it is used by another now (%v); writes are refused until the disk is opened anew", e.Err)
}

// Unwrap has clients see an I/O error.
func (e *LockLostError) Unwrap() error { return syscall.EIO }

// guardBy has the file looked after by its locks; there may be none.
func (f *File) guardBy(l *fileLocks) {
	f.nlm = l
	if l != nil {
		l.watch(f.postLoss)
	}
}

// confirmed makes sure that the locks are there before calls are sent over a new connection: what they wait for may have been a restart of the server, which
// has forgotten the locks, and somebody else may have got them. That they are lost is no error of the connection: what was written can still be read. A
// file that is gone is one that calls end with, as they would without locks: nothing can be waited for.
func (f *File) confirmed(ctx context.Context, fd int) (int, error) {
	if f.nlm == nil {
		return fd, nil
	}
	err := f.nlm.confirm(ctx)
	if _, lost := errors.AsType[*LockLostError](err); err == nil || lost {
		return fd, nil
	}
	unix.Close(fd)
	if isStale(err) {
		err = fmt.Errorf("the server does not know the file any more: it was removed or replaced, or its file system is away (%w)", err)
	}
	return -1, err
}

// isStale reports whether a server has said that there is no such file, which no repetition will change soon.
func isStale(err error) bool { return errors.Is(err, syscall.ESTALE) }

// postLoss has the loop notice that the locks are lost; it is called again until it has. Safe from anywhere.
func (f *File) postLoss() {
	loop := f.loop.Load()
	if loop == nil {
		return
	}
	loop.Post(func() {
		if (f.ctx == nil || f.ctx == loop) && (f.node == nil || f.node.Context() == loop) { // it has not moved meanwhile
			f.noticeLoss()
		}
	})
}

// noticeLoss ends all calls that change the file, when the locks are lost, and tells of it. On the loop.
func (f *File) noticeLoss() {
	err := f.nlm.errorOf()
	if err == nil || f.refusing {
		return
	}
	f.refusing = true
	f.nlm.told.Store(true)
	for _, k := range f.calls.all {
		if k.state != callFree && changes(k.proc) {
			k.conn.forget(k)
			f.finish(k, err)
		}
	}
	h := Health{URL: f.url, Node: f.nodeName(), Refuses: true, Why: err.Error(), Since: time.Now()}
	f.sick = true
	f.health.Store(&h)
	if f.onHealth != nil {
		f.onHealth(h)
	}
}

// changes reports whether a procedure changes the file, or says that it was changed.
func changes(p wire.Proc) bool {
	return p == wire.ProcWrite || p == wire.ProcCommit || p == wire.ProcSetattr
}

// refusal is why a call may not be made.
func (f *File) refusal(p wire.Proc) error {
	if f.nlm == nil || !changes(p) {
		return nil
	}
	return f.nlm.errorOf()
}

// refuse ends a call that was not begun.
func (f *File) refuse(c *call, err error) {
	g := c.group
	f.calls.give(c)
	if g.err == nil {
		g.err = err
	}
}
