package sim

import (
	"fmt"
	"math/rand/v2"
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
		t.Sleep(1 + time.Duration(h.rng.Int64N(int64(h.slow))))
	}
	if h.rng.IntN(1000) < h.failing {
		return errInjected
	}
	return nil
}
