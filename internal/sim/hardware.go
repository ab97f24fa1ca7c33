package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
)

// errInjected is what a disk fails with where the seed says so.
var errInjected = fmt.Errorf("injected: %w", syscall.EIO)

// hardware takes its time, and fails.
type hardware struct {
	// Immutable.
	rng     *rand.Rand
	slow    time.Duration // the longest that a piece of a request takes; 0 = no time, only turns
	failing int           // of a thousand requests
	// unwanted asks whether what a Task waits for may end early; nil = nothing ever does.
	unwanted func(*blockcore.Task) bool

	// Owned by the context.
	delays []*delay
}

// delay is somebody who waits for the hardware.
type delay struct {
	task      *blockcore.Task
	timer     *blockcore.Timer
	over      blockcore.WaitQueue
	cancelled bool
}

func newHardware(rng *rand.Rand) hardware {
	h := hardware{rng: rng, slow: time.Duration(rng.IntN(20)) * 50 * time.Microsecond}
	if rng.IntN(3) == 0 {
		h.slow = 0
	}
	h.failing = rng.IntN(3) * 10
	return h
}

// work takes some time and perhaps fails.
func (h *hardware) work(t *blockcore.Task) error {
	switch n := h.rng.IntN(4); {
	case n == 0:
	case n == 1 || h.slow == 0:
		t.Yield()
	default:
		if err := h.wait(t, 1+time.Duration(h.rng.Int64N(int64(h.slow)))); err != nil {
			return err
		}
	}
	if h.rng.IntN(1000) < h.failing {
		return errInjected
	}
	return nil
}

// wait has t wait for some time, unless nobody wants any more what it waits for.
func (h *hardware) wait(t *blockcore.Task, d time.Duration) error {
	if h.unwanted == nil {
		t.Sleep(d)
		return nil
	}
	if h.unwanted(t) {
		return blockcore.ErrCancelled
	}
	one := &delay{task: t}
	one.timer = t.Context().After(d, one.over.WakeAll)
	h.delays = append(h.delays, one)
	t.Wait(&one.over)
	h.delays = slices.DeleteFunc(h.delays, func(other *delay) bool { return other == one })
	if one.cancelled {
		return blockcore.ErrCancelled
	}
	return nil
}

// Cancel implements blockcore.Canceller, where it is one.
func (h *hardware) Cancel() {
	for _, one := range h.delays {
		if !one.cancelled && h.unwanted != nil && h.unwanted(one.task) {
			one.cancelled = true
			one.timer.Stop()
			one.over.WakeAll()
		}
	}
}
