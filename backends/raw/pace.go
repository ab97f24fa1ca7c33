package raw

import (
	"sync/atomic"
	"time"
)

// Limits of pace. Measured in docs/decisions/0003-buffered-writes.md.
const (
	// paceSlow is what an inline write may take, besides copying, before it counts as slow. A 4 KiB write into the
	// page cache takes some 2 us; being throttled for dirty pages starts at several ms.
	paceSlow = time.Millisecond
	// paceCopyPerByte allows for the copy of long writes: 1 GB/s.
	paceCopyPerByte = time.Nanosecond
	// paceDetourMin is how long the engine writes after one slow write: one hiccup of the scheduler must
	// not cost much.
	paceDetourMin = 5 * time.Millisecond
	// paceDetourMax bounds the detour while every attempt is slow: one stall of the loop a second.
	paceDetourMax = time.Second
)

// pace decides whether the loop itself makes buffered writes, or looks up the map of the file. That is the cheapest way as long as they only copy
// into the page cache. When the kernel makes a writer wait, for memory or because too much is dirty,
// the loop would wait with it, and so would every client of the export. So a slow write sends those after it
// to the engine for a while; when the first one after that is slow again, for twice as long.
//
// The zero value is ready.
type pace struct {
	// Safe from anywhere. Two contexts that update them at once lose one observation, which does no harm.
	until  atomic.Int64 // time.Duration on the context's clock: when the detour ends
	detour atomic.Int64 // length of the last one, a time.Duration
}

// inline reports whether the loop may write by itself.
func (p *pace) inline(now time.Duration) bool {
	return int64(now) >= p.until.Load()
}

// observe takes note of an inline write of n bytes that ended now.
func (p *pace) observe(now, took time.Duration, n int) {
	if took <= paceSlow+time.Duration(n)*paceCopyPerByte {
		return
	}
	last := time.Duration(p.detour.Load())
	next := paceDetourMin
	if last > 0 && now-time.Duration(p.until.Load()) < last {
		next = min(2*last, paceDetourMax)
	}
	p.detour.Store(int64(next))
	p.until.Store(int64(now + next))
}
