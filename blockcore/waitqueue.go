package blockcore

// WaitQueue is a queue of Tasks of one context that wait for something. The zero value is empty.
// Owned by the context.
//
// Analogous to QEMU's CoQueue.
type WaitQueue struct {
	first, last *Task
}

// Wait suspends t until it is woken, first come first served. A woken Task looks again whether what
// it waited for is true.
func (t *Task) Wait(q *WaitQueue) {
	t.link = nil
	if q.last == nil {
		q.first = t
	} else {
		q.last.link = t
	}
	q.last = t
	t.suspend()
}

// Empty reports whether nobody waits.
func (q *WaitQueue) Empty() bool { return q.first == nil }

// WakeOne has the Task that waits longest resumed, if there is one.
func (q *WaitQueue) WakeOne() bool {
	t := q.first
	if t == nil {
		return false
	}
	q.first = t.link
	if q.first == nil {
		q.last = nil
	}
	t.link = nil
	t.wakeSoon()
	return true
}

// WakeAll has all waiting Tasks resumed, in the order of their coming.
func (q *WaitQueue) WakeAll() {
	for q.WakeOne() {
	}
}
