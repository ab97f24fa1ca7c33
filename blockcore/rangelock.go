package blockcore

import (
	"slices"
	"time"
)

// RangeLocks orders requests on overlapping ranges of one node. Several may hold a range together unless
// one of them is exclusive ("serialising" in QEMU's words). The zero value is ready; drivers may have one of their own.
//
// INVARIANT: a request waits only for requests that came before it, so waiting has no cycles.
type RangeLocks struct {
	// Owned by the context.
	held []*RangeLock // in the order of their coming, those that still wait included
	free []*RangeLock
}

// RangeLock is one request's hold on a range. Owned by the context.
type RangeLock struct {
	r         Range
	exclusive bool
	waiters   WaitQueue // of later requests that must wait for this one
}

// Acquire waits until r is free for the request and returns its hold, which Release ends. Whoever holds a range does not ask for
// another one of the same locks.
func (l *RangeLocks) Acquire(t *Task, r Range, exclusive bool) *RangeLock {
	return l.AcquireOr(t, nil, r, exclusive)
}

// Patience says when a Task that has waited since a moment is to wait no longer.
type Patience interface {
	GivesUp(t *Task, since time.Duration) bool
}

// AcquireOr is Acquire for who may give up, and returns nil then. p may be nil. Recheck has it look.
func (l *RangeLocks) AcquireOr(t *Task, p Patience, r Range, exclusive bool) *RangeLock {
	k, since := l.take(), time.Duration(-1)
	k.r, k.exclusive = r, exclusive
	l.held = append(l.held, k)
	for {
		before := l.conflict(k)
		if before == nil {
			return k
		}
		if since < 0 {
			since = t.Now()
		}
		if p != nil && p.GivesUp(t, since) {
			l.Release(k)
			return nil
		}
		t.Wait(&before.waiters)
	}
}

// Recheck has all look again who wait.
func (l *RangeLocks) Recheck() {
	for _, k := range l.held {
		k.waiters.WakeAll()
	}
}

// conflict returns a request ahead of k that k must wait for.
func (l *RangeLocks) conflict(k *RangeLock) *RangeLock {
	for _, other := range l.held {
		if other == k {
			return nil
		}
		if (other.exclusive || k.exclusive) && other.r.Overlaps(k.r) {
			return other
		}
	}
	return nil
}

// holds reports whether r lies in a range that somebody has alone.
func (l *RangeLocks) holds(r Range) bool {
	return slices.ContainsFunc(l.held, func(k *RangeLock) bool {
		return k.exclusive && k.r.Offset <= r.Offset && r.End() <= k.r.End() && l.conflict(k) == nil
	})
}

// Release lets those go on who wait for k.
func (l *RangeLocks) Release(k *RangeLock) {
	l.held = slices.Delete(l.held, slices.Index(l.held, k), slices.Index(l.held, k)+1)
	k.waiters.WakeAll()
	l.free = append(l.free, k)
}

func (l *RangeLocks) take() *RangeLock {
	if last := len(l.free) - 1; last >= 0 {
		k := l.free[last]
		l.free = l.free[:last]
		return k
	}
	return &RangeLock{}
}
