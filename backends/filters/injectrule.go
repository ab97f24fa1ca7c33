package filters

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
)

// InjectOps is a set of kinds of requests.
type InjectOps uint8

// The kinds of requests, under the names that QEMU's BlkdebugIOType gives them.
const (
	InjectRead InjectOps = 1 << iota // prefetches too
	InjectWrite
	InjectZero
	InjectDiscard
	InjectFlush
	InjectStatus

	// InjectDefault is what a rule that names none is for: all but questions for the map.
	InjectDefault = InjectRead | InjectWrite | InjectZero | InjectDiscard | InjectFlush
)

var injectNames = [...]string{"read", "write", "write-zeroes", "discard", "flush", "block-status"}

// ParseInjectOp reads one of QEMU's names for a kind of request; "" is InjectDefault.
func ParseInjectOp(s string) (InjectOps, error) {
	if s == "" {
		return InjectDefault, nil
	}
	for i, name := range injectNames {
		if s == name {
			return 1 << i, nil
		}
	}
	return 0, fmt.Errorf("Parameter 'iotype' does not accept value '%s'", s)
}

// InjectRule says what happens to some requests. Of the rules that match a request the first one counts.
type InjectRule struct {
	// Ops are the kinds of requests; 0 takes InjectDefault.
	Ops InjectOps
	// Range matches requests that overlap it; the zero Range matches all. A flush is everywhere.
	Range blockcore.Range
	// Skip lets that many matching requests pass first.
	Skip int
	// Times is how many requests the rule is for; 0 = all.
	Times int
	// Probability is how likely the rule is for a request that matches; 0 takes 1.
	Probability float64

	// Hold keeps the request until the rules change; it then looks at the new ones as if it had just come. Excludes the others.
	Hold bool
	// Delay passes before the request goes on.
	Delay time.Duration
	// Errno fails the request, without effect, after Delay; 0 = it goes on.
	Errno syscall.Errno
}

// errnoMax is the last number that Linux has for an error.
const errnoMax = 4095

func (r *InjectRule) check() error {
	switch {
	case r.Ops&^(InjectDefault|InjectStatus) != 0:
		return errors.New("unknown kind of request")
	case r.Range.Offset < 0 || r.Range.Length < 0:
		return fmt.Errorf("range %v is negative", r.Range)
	case r.Range.Length > math.MaxInt64-r.Range.Offset:
		return fmt.Errorf("a range of %d bytes from %d on has no end", r.Range.Length, r.Range.Offset)
	case r.Skip < 0 || r.Times < 0:
		return errors.New("skip and times cannot be negative")
	case !(r.Probability >= 0 && r.Probability <= 1): // NaN neither
		return fmt.Errorf("probability %v is not between 0 and 1", r.Probability)
	case r.Delay < 0:
		return fmt.Errorf("delay of %v is negative", r.Delay)
	case r.Errno > errnoMax:
		return fmt.Errorf("errno %d is not between 1 and %d", uint(r.Errno), errnoMax)
	case r.Hold && (r.Delay > 0 || r.Errno != 0):
		return errors.New("a rule that holds requests cannot delay or fail them too; change the rules to let them go on")
	case !r.Hold && r.Delay == 0 && r.Errno == 0:
		return errors.New("the rule does nothing; give it an errno, a delay or hold")
	}
	return nil
}

func checkRules(rules []InjectRule) error {
	for i := range rules {
		if err := rules[i].check(); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return nil
}

func (r *InjectRule) matches(op InjectOps, at blockcore.Range) bool {
	ops := r.Ops
	if ops == 0 {
		ops = InjectDefault
	}
	return ops&op != 0 && (r.Range == blockcore.Range{} || op == InjectFlush || r.Range.Overlaps(at))
}

// injectRules are rules with what has become of them.
type injectRules []armedRule

type armedRule struct {
	InjectRule
	skipped, used int
}

func arm(rules []InjectRule) injectRules {
	armed := make(injectRules, len(rules))
	for i, r := range rules {
		armed[i].InjectRule = r
	}
	return armed
}

// pick returns the rule for a request, or nil, and counts it. chance gives a number from 0 up to 1.
func (rules injectRules) pick(op InjectOps, at blockcore.Range, chance func() float64) *InjectRule {
	for i := range rules {
		r := &rules[i]
		switch {
		case !r.matches(op, at):
		case r.skipped < r.Skip:
			r.skipped++
		case r.Times > 0 && r.used == r.Times:
		case r.Probability > 0 && r.Probability < 1 && chance() >= r.Probability:
		default:
			r.used++
			return &r.InjectRule
		}
	}
	return nil
}
