package blockcore

import (
	"container/heap"
	"time"
)

// Timer calls a function on its loop when its time has come.
//
// Analogous to QEMU's QEMUTimer on a context's timer list.
type Timer struct {
	// Immutable.
	ctx *AioContext
	fn  func()

	// Owned by the context.
	at    time.Duration // by the context's clock
	index int           // position in the heap; -1 when not pending
}

// After has fn called on the loop when d has passed. On the loop only.
func (c *AioContext) After(d time.Duration, fn func()) *Timer {
	tm := c.NewTimer(fn)
	tm.Reset(d)
	return tm
}

// NewTimer returns a timer that waits for Reset.
func (c *AioContext) NewTimer(fn func()) *Timer { return &Timer{ctx: c, fn: fn, index: -1} }

// Reset has the function called when d has passed from now, whatever was planned before. On the loop only.
func (tm *Timer) Reset(d time.Duration) {
	tm.at = tm.ctx.clock.now() + d
	if tm.index < 0 {
		heap.Push(&tm.ctx.timers, tm)
		return
	}
	heap.Fix(&tm.ctx.timers, tm.index)
}

// Stop takes the timer back and reports whether it was still pending. On the loop only.
func (tm *Timer) Stop() bool {
	if tm.index < 0 {
		return false
	}
	heap.Remove(&tm.ctx.timers, tm.index)
	return true
}

// Left returns how long it is until tm is due, or would be if it had not been stopped. On its loop, or when it is stopped.
func (tm *Timer) Left() time.Duration { return max(tm.at-tm.ctx.clock.now(), 0) }

// runTimers calls those whose time has come and reports whether there were any.
func (c *AioContext) runTimers() bool {
	now := c.clock.now()
	worked := false
	for len(c.timers) > 0 && c.timers[0].at <= now {
		tm := heap.Pop(&c.timers).(*Timer)
		tm.fn()
		c.pause()
		worked = true
	}
	return worked
}

// timerHeap is ordered by time, the next timer first.
type timerHeap []*Timer

// next returns the time of the first timer.
func (h timerHeap) next() (time.Duration, bool) {
	if len(h) == 0 {
		return 0, false
	}
	return h[0].at, true
}

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	tm := x.(*Timer)
	tm.index = len(*h)
	*h = append(*h, tm)
}

// Pop implements heap.Interface.
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	tm := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	tm.index = -1
	return tm
}
