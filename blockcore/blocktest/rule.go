package blocktest

import (
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
)

// Op is a kind of request to a driver.
type Op uint8

const (
	OpAny Op = iota // in a Rule: all of them
	OpRead
	OpWrite
	OpFlush
	OpZero
	OpDiscard
	OpStatus
	OpClose
	OpResize
)

var opNames = [...]string{"any", "read", "write", "flush", "zero", "discard", "status", "close", "resize"}

func (o Op) String() string { return opNames[o] }

// Rule says what a Fake does to some requests besides executing them. Of the rules that match a request the first one
// counts.
type Rule struct {
	// Op is the kind of request; OpAny matches all but OpClose.
	Op Op
	// Range matches requests that overlap it; the zero Range matches all.
	Range blockcore.Range
	// Skip lets that many matching requests pass untouched first.
	Skip int
	// Times is how many requests the rule is for; 0 = all.
	Times int

	// Gate holds the request; then Delay passes; then, unless Err is 0, it fails without effect.
	Gate  *Gate
	Delay time.Duration
	Err   syscall.Errno
	// After applies the request before it is held, delayed and failed: a lost or late reply.
	After bool
}

func (r *Rule) matches(op Op, at blockcore.Range) bool {
	if r.Op != op && (r.Op != OpAny || op == OpClose) {
		return false
	}
	return r.Range == (blockcore.Range{}) || op == OpFlush || op == OpClose || op == OpResize || r.Range.Overlaps(at)
}

// apply is the rule's effect on t's request.
func (r *Rule) apply(t *blockcore.Task) error {
	if r.Gate != nil {
		r.Gate.pass(t)
	}
	if r.Delay > 0 {
		t.Sleep(r.Delay)
	}
	if r.Err != 0 {
		return r.Err
	}
	return nil
}

// armedRule is a Rule with its counts.
type armedRule struct {
	rule    Rule
	skipped int
	used    int
}

// take reports whether the rule is for this request, and counts it.
func (a *armedRule) take(op Op, at blockcore.Range) bool {
	if !a.rule.matches(op, at) {
		return false
	}
	if a.skipped < a.rule.Skip {
		a.skipped++
		return false
	}
	if a.rule.Times > 0 && a.used == a.rule.Times {
		return false
	}
	a.used++
	return true
}
