package blockcore

import "time"

// Tuning is what can be changed of a loop that runs. QEMU calls these the properties of an IOThread.
type Tuning struct {
	// PollMax bounds how long the loop looks for work before it sleeps; 0 or less = it does not.
	PollMax time.Duration
	// PollGrow is what the time worth polling is multiplied by when it was too short; 0 = pollGrow.
	PollGrow int64
	// PollShrink is what it is divided by when it was in vain; 0 = pollShrink.
	PollShrink int64
	// Batch is how many operations are collected before they are given to the kernel, in a turn; 0 = all of the turn.
	Batch int64
	// WorkersMin of the goroutines that may block are there before anybody asks for one.
	WorkersMin int
	// WorkersMax bounds their number, as WorkersLimit does. Those that are too many end when they have nothing to do.
	WorkersMax int
}

// WorkersLimit bounds the workers of a loop, whatever is asked for: each can hold a thread of the process.
const WorkersLimit = 4096

// Tuning returns what was asked for last. Safe from anywhere.
func (c *AioContext) Tuning() Tuning {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tuning
}

// Tune has the loop go by other values from its next turn on. Safe from anywhere; nothing happens to a loop that is closed.
func (c *AioContext) Tune(t Tuning) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.tuning = t
	c.postLocked(func() { c.take(t) })
	c.mu.Unlock()
	c.wake()
}

// take applies the values. On the loop, or before it runs.
func (c *AioContext) take(t Tuning) {
	c.polling.tune(t)
	c.batch = t.Batch
	c.workers.resize(min(t.WorkersMin, WorkersLimit), min(t.WorkersMax, WorkersLimit))
}

// batched submits what is queued when it is as much as a batch may be. On the loop.
func (c *AioContext) batched() {
	if c.batch > 0 && int64(c.engine.queued()) >= c.batch {
		c.engine.submit()
	}
}
