package nfs

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/internal/imagelock"
)

// simLocking is the part of a world in which a file is opened by way of MOUNT and the port mapper, and locked. It belongs to whoever runs.
type simLocking struct {
	opening *Options      // nil = the file is there without
	foreign bool          // somebody else has the disk, who stays
	came    bool          // there was such a one
	comes   time.Duration // when he will, if there are no locks in his way; 0 = he will not
	grace   time.Duration // until when the server gives only what is reclaimed; 0 = it gives everything
	dropped bool          // the locks were, since the last crash
	crashes int
	longest time.Duration // of the timeouts
	visitor simVisitor

	// Safe from anywhere.
	wires atomic.Int64 // that there were
}

// simForeignLock is QEMU, on another host, that writes.
var simForeignLock = nfstest.Lock{Host: "other", Number: 7, Offset: imagelock.First + 1, LengthBytes: 1}

// openLocked opens the file as Open does, again and again until it can be.
func (c *simThread) openLocked() bool {
	w := c.w
	o := w.opening
	if o == nil {
		return true
	}
	for tries := 0; tries < 10 && !w.Failed(); tries++ {
		f, err := w.openOnce(o)
		c.pause(0) // it may have been ended by time alone
		w.Log("open: %v", err)
		w.Progress()
		if err == nil {
			w.file = f
			w.Count("opened")
			if n := len(w.server.Locks(simFile)); n != w.ownLocks() && !w.dropped && w.life() {
				w.Fail("the file is open, and has %d locks", n)
			}
			return true
		}
		w.Count("not opened")
		c.pause(w.someTime())
		if tries >= 5 {
			w.heal()
		}
	}
	w.Fail("the file cannot be opened")
	return false
}

// life reports that the server has all that it ever had.
func (w *simWorld) life() bool { return w.crashes == 0 }

func (w *simWorld) openOnce(o *Options) (*File, error) {
	d := newDialer(o)
	d.simulated, d.simulatedDial = w.way, w.dial
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	defer cancel()
	walker := newWalker(ctx, o)
	walker.dialer = d
	defer walker.close()
	f, err := walker.open()
	if err != nil {
		return nil, walker.explain(err)
	}
	return f, nil
}

// ownLocks is how many locks the file is to have.
func (w *simWorld) ownLocks() int {
	set := w.opening.locks()
	if w.readOnly {
		set = w.opening.readerLocks()
	}
	return len(slices.Collect(set.Bytes()))
}

// crashedLocks is what a crash means for locks: a time of grace, and the chance of another.
func (w *simWorld) crashedLocks() {
	w.crashes++
	w.dropped, w.foreign, w.comes, w.grace = false, false, 0, 0
	if w.opening == nil {
		return
	}
	w.visitorGone()
	if w.rng.IntN(2) == 0 {
		w.server.SetGrace(true)
		w.grace = w.down + time.Duration(w.rng.Int64N(int64(time.Minute)))
	} else {
		w.server.SetGrace(false)
	}
	if w.rng.IntN(3) == 0 {
		w.comes = max(w.down, w.grace) + time.Duration(w.rng.Int64N(int64(time.Second)))
	}
}

// lockEvents does what is due about locks.
func (w *simWorld) lockEvents() {
	if w.grace > 0 && w.grace <= w.Now() {
		w.Log("the time of grace is over")
		w.server.SetGrace(false)
		w.grace = 0
	}
	if w.comes > 0 && w.comes <= w.Now() && w.up() {
		w.comes = 0
		if len(w.server.Locks(simFile)) == 0 && w.file != nil && !w.closing && !w.dropped {
			w.Log("somebody else takes the disk")
			w.Count("somebody else takes the disk")
			w.server.PutLock(simFile, simForeignLock)
			w.foreign, w.came = true, true
		}
	}
	w.visitorEvents()
	w.wake(w.grace)
	w.wake(w.comes)
}

// checkMine looks whether the file is ours when it is changed.
func (w *simWorld) checkMine(what string) {
	if w.foreign && !w.closing {
		w.Fail("%s, and somebody else has the disk", what)
	}
	if w.readOnly && w.opening != nil {
		w.Fail("%s, and the file is read-only", what)
	}
}

// lastLookAtLocks sees to it that the locks are there in the end, or that the loss was noticed.
func (c *simThread) lastLookAtLocks() (mine bool) {
	w := c.w
	if w.opening == nil {
		return true
	}
	so := func() bool {
		return w.came && w.file.RefusesWrites() || (!w.foreign || w.bothRead()) && len(w.ourLocks()) == w.ownLocks()
	}
	for until := w.Now() + simRecoveryMax; !so(); c.pause(time.Second) {
		if w.Now() > until || w.Failed() {
			w.Fail("somebody else has the disk: %t; refused: %t; locks %v", w.foreign, w.file.RefusesWrites(), w.server.Locks(simFile))
			return false
		}
		w.Progress()
	}
	if w.file.RefusesWrites() {
		w.Count("the loss of a lock is noticed")
	}
	return !w.file.RefusesWrites() && !w.foreign
}

// bothRead reports whether who has the disk is a visitor who reads, and the file was made read-only since he came: they are in nobody's way, and there was no loss to notice.
func (w *simWorld) bothRead() bool { return w.readOnly && w.visitor.owns && w.visitor.use.ReadOnly }

// checkUnlocked looks for locks that a file has left behind.
func (w *simWorld) checkUnlocked() {
	for _, l := range w.ourLocks() {
		w.Fail("a lock stays: %v", l)
	}
}
