package blockcore

import "time"

// Growth of the time that a loop polls, as QEMU's IOThread does it by default.
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
}

func newPollPolicy(maximum time.Duration) pollPolicy {
	return pollPolicy{max: max(maximum, 0)}
}

// adjust learns from one rest that lasted rested, polling and sleep together.
func (p *pollPolicy) adjust(rested time.Duration) {
	switch {
	case p.max == 0 || rested <= p.current:
		// Caught by polling: just right.
	case rested > p.max:
		p.current /= pollShrink
		if p.current < pollFirst {
			p.current = 0
		}
	default:
		p.current = min(max(p.current*pollGrow, pollFirst), p.max)
	}
}
