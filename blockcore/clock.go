package blockcore

import "time"

// clock is the time of a loop: monotonic, from an arbitrary beginning. Tests replace it.
type clock interface{ now() time.Duration }

// monotonicClock is the same for all loops of the process: what a node remembers of times stays true when it moves.
type monotonicClock struct{}

// processBegin is when the clocks of all loops began.
var processBegin = time.Now()

func newMonotonicClock() monotonicClock { return monotonicClock{} }

func (monotonicClock) now() time.Duration { return time.Since(processBegin) }
