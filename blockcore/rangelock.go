package blockcore

import "slices"

// rangeLocks orders requests on overlapping ranges of one node. Several may hold a range together unless
// one of them is exclusive ("serialising" in QEMU's words).
//
// INVARIANT: a request waits only for requests that came before it, so waiting has no cycles.
type rangeLocks struct {
	// Owned by the context.
	held []*rangeLock // in the order of their coming, those that still wait included
	free []*rangeLock
}

// rangeLock is one request's hold on a range. Owned by the context.
type rangeLock struct {
	r         Range
	exclusive bool
	waiters   WaitQueue // of later requests that must wait for this one
}

// acquire waits until r is free for the request and returns its hold, which release ends.
func (l *rangeLocks) acquire(t *Task, r Range, exclusive bool) *rangeLock {
	k := l.take()
	k.r, k.exclusive = r, exclusive
	l.held = append(l.held, k)
	for {
		before := l.conflict(k)
		if before == nil {
			return k
		}
		t.Wait(&before.waiters)
	}
}

// conflict returns a request ahead of k that k must wait for.
func (l *rangeLocks) conflict(k *rangeLock) *rangeLock {
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

func (l *rangeLocks) release(k *rangeLock) {
	l.held = slices.Delete(l.held, slices.Index(l.held, k), slices.Index(l.held, k)+1)
	k.waiters.WakeAll()
	l.free = append(l.free, k)
}

func (l *rangeLocks) take() *rangeLock {
	if last := len(l.free) - 1; last >= 0 {
		k := l.free[last]
		l.free = l.free[:last]
		return k
	}
	return &rangeLock{}
}
