package blockcore

import "time"

// clock is the time of a loop: monotonic, from an arbitrary beginning. Tests replace it.
type clock interface{ now() time.Duration }

type monotonicClock struct{ begin time.Time }

func newMonotonicClock() monotonicClock { return monotonicClock{begin: time.Now()} }

func (m monotonicClock) now() time.Duration { return time.Since(m.begin) }
