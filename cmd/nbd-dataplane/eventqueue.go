package main

import (
	"sync/atomic"
	"time"
)

// eventsQueued is how many events may wait to be written down. Beyond it they are counted and dropped: a loop must not wait
// for whoever reads our standard error.
const eventsQueued = 1024

// eventsDrainMax is how long a stop waits for the last events to be written.
const eventsDrainMax = time.Second

// eventQueue writes events down away from the loops where they happen.
type eventQueue struct {
	// Immutable.
	write  func(any)
	lost   func(n uint64)
	events chan any
	quit   chan struct{} // closed by close
	done   chan struct{} // closed when writeLoop has ended

	// Safe from anywhere.
	dropped atomic.Uint64
}

func newEventQueue(write func(any), lost func(uint64)) *eventQueue {
	q := &eventQueue{
		write: write, lost: lost, events: make(chan any, eventsQueued),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go q.writeLoop()
	return q
}

// put has e written down. It never waits.
func (q *eventQueue) put(e any) {
	select {
	case q.events <- e:
	default:
		q.dropped.Add(1)
	}
}

// close writes down what is there, as long as that gets on.
func (q *eventQueue) close() {
	close(q.quit)
	select {
	case <-q.done:
	case <-time.After(eventsDrainMax):
	}
}

// writeLoop writes until close, and then what is left.
func (q *eventQueue) writeLoop() {
	defer close(q.done)
	for {
		select {
		case e := <-q.events:
			q.one(e)
			continue
		default:
		}
		select {
		case e := <-q.events:
			q.one(e)
		case <-q.quit:
			return
		}
	}
}

func (q *eventQueue) one(e any) {
	q.write(e)
	if n := q.dropped.Swap(0); n > 0 {
		q.lost(n)
	}
}
