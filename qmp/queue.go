package qmp

import "sync"

// queue holds the commands of a connection that wait for their turn. The reader waits when it is full.
type queue struct {
	mu sync.Mutex
	// Guarded by mu.
	changed sync.Cond
	waiting []request
	weight  int
	closed  bool // the reader adds no more
	dropped bool // the runner takes no more
}

func newQueue() *queue {
	q := &queue{}
	q.changed.L = &q.mu
	return q
}

// push waits for room and is false if nobody will run the command.
func (q *queue) push(r request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 && (len(q.waiting) >= queueLenMax || q.weight+r.weight > queueWeightMax) && !q.dropped {
		q.changed.Wait()
	}
	if q.dropped {
		return false
	}
	q.waiting = append(q.waiting, r)
	q.weight += r.weight
	q.changed.Broadcast()
	return true
}

// pop waits for a command and is false when there will be none.
func (q *queue) pop() (request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed && !q.dropped {
		q.changed.Wait()
	}
	if len(q.waiting) == 0 || q.dropped {
		return request{}, false
	}
	r := q.waiting[0]
	q.waiting = append(q.waiting[:0], q.waiting[1:]...)
	q.weight -= r.weight
	q.changed.Broadcast()
	return r, true
}

// close is called by the reader at the end of its input: what waits is still run.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// drop throws away what waits.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped, q.waiting, q.weight = true, nil, 0
	q.changed.Broadcast()
}
