package blockcore

import (
	"iter"
	"time"

	"nbd-dataplane/internal/check"
	"nbd-dataplane/internal/membuf"
)

// Body is what a Task runs.
type Body interface{ Run(t *Task) }

// BodyFunc makes a Body of a function. It costs an allocation where the function captures
// something; types of the hot path implement Body themselves.
type BodyFunc func(*Task)

// Run calls f.
func (f BodyFunc) Run(t *Task) { f(t) }

// Task is a coroutine of an AioContext: straight-line code that may suspend, in which case the loop goes
// on with others. It never runs off its context's thread, and it suspends only inside its own methods.
//
// Analogous to QEMU's Coroutine.
type Task struct {
	// Immutable.
	ctx   *AioContext
	index uint32 // slot in the context's table; names the Task towards the kernel
	next  func() (struct{}, bool)
	stop  func()

	// Owned by the context.
	yield func(struct{}) bool
	body  Body
	done  bool
	op    operation // the one operation that the Task waits for
	link  *Task     // next in the WaitQueue it waits in
	node  *Node     // in whose driver it is; nil = in none
	// ticket is the request that it executes; nil = it executes none.
	ticket *Ticket
}

// Spawn starts body as a Task. Called by the loop itself it runs at once, up to its first suspension;
// called by a Task it runs when that one has suspended or ended. On the loop only.
func (c *AioContext) Spawn(body Body) {
	var t *Task
	if last := len(c.idle) - 1; last >= 0 {
		t = c.idle[last]
		c.idle[last] = nil
		c.idle = c.idle[:last]
	} else {
		t = c.newTask()
	}
	t.body = body
	c.live++
	c.begun++
	if c.current == nil {
		c.resume(t)
		return
	}
	c.ready = append(c.ready, t)
}

func (c *AioContext) newTask() *Task {
	t := &Task{ctx: c}
	t.op.task = t
	t.index = c.tasks.add(t)
	t.next, t.stop = iter.Pull(t.coroutine)
	return t
}

// coroutine runs one body after the other; a yield with done set hands the coroutine back.
func (t *Task) coroutine(yield func(struct{}) bool) {
	t.yield = yield
	for {
		t.body.Run(t)
		t.body = nil
		t.done = true
		if !yield(struct{}{}) {
			return
		}
	}
}

// resume switches to t until it suspends or ends.
func (c *AioContext) resume(t *Task) {
	if check.Enabled {
		check.Invariant(c.current == nil, "a Task was resumed from inside another one")
		check.Invariant(!t.done, "a finished Task was resumed")
	}
	c.current = t
	t.next()
	c.current = nil
	if !t.done {
		return
	}
	t.done = false
	c.live--
	if len(c.idle) < tasksIdleMax {
		c.idle = append(c.idle, t)
		return
	}
	c.tasks.remove(t.index)
	t.stop()
}

// suspend gives the thread back to the loop until somebody resumes t.
func (t *Task) suspend() {
	t.ctx.assertCurrent(t)
	t.yield(struct{}{})
}

// wakeSoon has t resumed by the loop. On the loop only.
func (t *Task) wakeSoon() { t.ctx.ready = append(t.ctx.ready, t) }

// Context returns the AioContext that t runs on.
func (t *Task) Context() *AioContext { return t.ctx }

// Now reads the context's clock.
func (t *Task) Now() time.Duration {
	t.ctx.latest = t.ctx.clock.now()
	return t.ctx.latest
}

// Latest is what the clock last said to somebody on this loop: not before the turn began, and for nothing.
func (t *Task) Latest() time.Duration { return t.ctx.latest }

// Buffers returns the I/O memory of the Task's context.
func (t *Task) Buffers() *membuf.Cache { return t.ctx.buffers }

// Alone reports whether nothing else waits to be started in this turn, so that an attempt that
// keeps the thread delays nobody and joins no batch.
func (t *Task) Alone() bool {
	return !t.ctx.backlog && len(t.ctx.ready) == 0 && t.ctx.engine.queued() == 0
}

// BeginCopy says that another thread, of the engine's, copies so much for t that it wants a processor for itself: until EndCopy the
// loop sleeps at once when there is nothing to do, where else it would look for work first.
func (t *Task) BeginCopy() { t.ctx.BeginLull() }

// EndCopy ends what BeginCopy began.
func (t *Task) EndCopy() { t.ctx.EndLull() }

// Yield lets everything else that is ready run first.
func (t *Task) Yield() {
	t.wakeSoon()
	t.suspend()
}

// Sleep suspends t for d.
func (t *Task) Sleep(d time.Duration) {
	t.ctx.After(d, t.wakeSoon)
	t.suspend()
}

// Block runs fn on a worker goroutine, where it may block, and returns its error. fn must not
// touch what the context owns.
func (t *Task) Block(fn func() error) error {
	var err error
	t.ctx.workers.run(func() {
		err = fn()
		t.ctx.resumeFromWorker(t)
	})
	t.suspend()
	return err
}

// resumeFromWorker has t resumed by its loop. Safe from anywhere.
func (c *AioContext) resumeFromWorker(t *Task) {
	c.mu.Lock()
	c.postLocked(t.wakeSoon)
	c.mu.Unlock()
	c.wake()
}
