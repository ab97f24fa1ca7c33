package uring

import "sync/atomic"

// counters has one writer, the owner; atomics let metrics read it from elsewhere. They move once a system
// call or once a Reap, not once an operation.
type counters struct {
	enters, waits, interrupted, submitted, completed, overflows atomic.Uint64
}

// Stats counts since New.
type Stats struct {
	Enters      uint64 // calls of io_uring_enter
	Waits       uint64 // those that could block
	Interrupted uint64 // those that a signal ended
	Submitted   uint64 // entries the kernel has taken
	Completed   uint64 // completions reaped
	Overflows   uint64 // times completions were fetched that had not fitted the queue
}

// Stats returns the figures of this moment. Safe from anywhere.
func (r *Ring) Stats() Stats {
	c := &r.counters
	return Stats{
		Enters:      c.enters.Load(),
		Waits:       c.waits.Load(),
		Interrupted: c.interrupted.Load(),
		Submitted:   c.submitted.Load(),
		Completed:   c.completed.Load(),
		Overflows:   c.overflows.Load(),
	}
}
