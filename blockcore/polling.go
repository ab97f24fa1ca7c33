package blockcore

import (
	"math"
	"time"
)

// Growth of the time that a loop polls, where nobody asks for another.
const (
	pollFirst  = 4 * time.Microsecond
	pollGrow   = 2
	pollShrink = 2
)

// pollPolicy adapts how long a loop polls before it sleeps: longer while events
// arrive soon enough to be caught, shorter when they do not.
type pollPolicy struct {
	current time.Duration // how long to poll now; 0 = sleep at once
	max     time.Duration // never poll longer; 0 = never poll
	grow    int64         // at least 1
	shrink  int64         // at least 1
}

func newPollPolicy(maximum time.Duration) pollPolicy {
	var p pollPolicy
	p.tune(Tuning{PollMax: maximum})
	return p
}

// tune takes other limits; what was learned stays, as far as they allow it.
func (p *pollPolicy) tune(t Tuning) {
	p.max, p.grow, p.shrink = max(t.PollMax, 0), t.PollGrow, t.PollShrink
	if p.grow <= 0 {
		p.grow = pollGrow
	}
	if p.shrink <= 0 {
		p.shrink = pollShrink
	}
	p.current = min(p.current, p.max)
}

// adjust learns from one rest that lasted rested, polling and sleep together.
func (p *pollPolicy) adjust(rested time.Duration) {
	switch {
	case p.max == 0 || rested <= p.current:
		// Caught by polling: just right.
	case rested > p.max:
		p.current /= time.Duration(p.shrink)
		if p.current < pollFirst {
			p.current = 0
		}
	default:
		p.current = min(max(p.longer(), pollFirst), p.max)
	}
}

// longer is the current time multiplied, as far as that fits.
func (p *pollPolicy) longer() time.Duration {
	if int64(p.current) > math.MaxInt64/p.grow {
		return math.MaxInt64
	}
	return p.current * time.Duration(p.grow)
}
