package nfs

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
)

// simReopening is the part of a world in which the file is opened otherwise while it is in use. It belongs to whoever runs.
type simReopening struct {
	reopens   bool // there are such changes
	readOnly  bool // the file is, and clients only read
	narrowing bool // it is about to be
}

// errUndone is the reason of a change that is not to stand.
var errUndone = errors.New("something else has failed")

// reopen has the file be read-only, or written to, with another timeout or the same. Now and then something else in the change fails.
func (c *simThread) reopen() {
	w := c.w
	to := Changes{ReadOnly: w.readOnly != (w.rng.IntN(3) > 0), Timeout: w.file.Timeout()}
	if w.rng.IntN(2) == 0 {
		to.Timeout = oneOf(w.rng, simTimeouts...)
	}
	undone := w.rng.IntN(5) == 0
	c.section("reopen", simStuckMax, func(d *blockcore.Drained) { _ = c.reopenTo(d, to, undone) })
	if w.readOnly && w.opening != nil && w.rng.IntN(2) == 0 {
		c.awaitGuest(2 * w.between)
		c.reopen()
	}
}

// awaitGuest waits, for so long at most, for a visitor who is not to be written beside.
func (c *simThread) awaitGuest(longest time.Duration) {
	for until := c.w.Now() + longest; c.w.Now() < until && !c.w.visitor.excludes(); {
		c.pause(longest / 16)
	}
}

// reopenTo is reopen in its section.
func (c *simThread) reopenTo(d *blockcore.Drained, to Changes, undone bool) error {
	w := c.w
	begin, restarts := w.Tick(), w.restarts
	w.narrowing = to.ReadOnly
	w.Log("reopen: %+v", to)
	err := w.graph.Update(context.Background(), "reopen", func(tx *blockcore.Tx) error {
		err := tx.Reopen(d, w.node, to)
		if err == nil && undone {
			return errUndone
		}
		return err
	})
	c.pause(0)
	w.narrowing = false
	w.Log("reopened: %v", err)
	w.Progress()
	switch {
	case err == nil:
		turns := to.ReadOnly != w.readOnly
		w.readOnly = to.ReadOnly
		w.timeout, w.longest = to.Timeout, to.Timeout // nobody waits any more who had another one
		if turns {
			w.turned(begin)
		}
	case errors.Is(err, errUndone):
		w.Count("a reopen is undone")
	default:
		w.judgeReopen(err, to, begin, restarts)
	}
	return err
}

// turned looks at a file that has become read-only, or is not so any more.
func (w *simWorld) turned(begin int64) {
	switch f := w.file; {
	case !w.readOnly:
		w.Count("reopened to be written to")
		if w.visitor.excludes() {
			w.Fail("the file is to be written to beside one who reads")
		}
		if n := len(w.ourLocks()); w.opening != nil && w.life() && !w.dropped && n != w.ownLocks() {
			w.Fail("the file is to be written to, and has %d locks", n)
		}
	case w.opening == nil:
		w.Count("reopened read-only") // nothing is promised
	default:
		w.Count("reopened read-only, with locks")
		w.flushed(begin)
		if f.held.pages.count > 0 || f.committing || slices.ContainsFunc(f.calls.all, func(k *call) bool { return k.state != callFree && changes(k.proc) }) {
			w.Fail("the file is read-only: %d pages held, committing %t", f.held.pages.count, f.committing)
		}
		w.visitorSoon()
	}
}

// judgeReopen checks why a reopen has failed.
func (w *simWorld) judgeReopen(err error, to Changes, begin int64, restarts int) {
	w.Count("not reopened")
	_, lost := errors.AsType[*LockLostError](err)
	var errno syscall.Errno
	switch {
	case w.opening == nil || to.ReadOnly == w.readOnly:
		w.Fail("a reopen that has nothing to do with the server has failed: %v", err)
	case lost && !w.came:
		w.Fail("the locks are said to be lost: %v", err)
	case isLocked(err):
		w.Count("somebody is in the way of a reopen")
		if !w.visited(begin) {
			w.Fail("nobody is in the way of a reopen: %v", err)
		}
	case !to.ReadOnly || lost: // a lock manager may be out of reach in many ways
	case !errors.As(err, &errno):
		w.Fail("a reopen has failed with an error without a number: %v", err)
	case errno == syscall.ETIMEDOUT && w.timeout > 0, errno == syscall.EIO && w.restarts-restarts >= runsMost, w.mayFail(errno, begin):
	default:
		w.Fail("a reopen has failed without a cause: %v", err)
	}
}

// reopenBack has a file written to again that is read-only, with a server that is well.
func (c *simThread) reopenBack() {
	w := c.w
	for until := w.Now() + simRecoveryMax; w.readOnly && !w.foreign && !w.file.RefusesWrites() && !w.Failed(); {
		c.section("reopen", simStuckMax, func(d *blockcore.Drained) {
			err := c.reopenTo(d, Changes{Timeout: w.file.Timeout()}, false)
			if err != nil && w.Now() > until {
				w.Fail("the file cannot be written to any more: %v", err)
			}
		})
		c.pause(time.Second)
	}
}
