package blocktest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// FakeOptions describe a Fake.
type FakeOptions struct {
	// Name begins the lines of the log; "" takes "fake".
	Name string
	// SizeBytes is the length of the disk; 0 takes 1 MiB.
	SizeBytes int64
	// Limits are what the disk says; Align 0 takes 1.
	Limits blockcore.Limits
	// Features are what the disk says. Without FastZero it refuses ZeroNoFallback.
	Features blockcore.Features
	// Log takes down every request; nil takes down nothing.
	Log *Log
}

// Fake is a disk in memory that does as it is told, by rules, and says what it does. Any number of contexts may
// use it at once. Each request is one line in the log when it comes and one when it is done:
//
//	fake: write [0x0, +0x200) fua
//	fake: write [0x0, +0x200) fua: ok
//
// Analogous to QEMU's blkdebug over null-co.
type Fake struct {
	// Immutable.
	name     string
	limits   blockcore.Limits
	features blockcore.Features
	log      *Log

	// Guarded by mu.
	mu        sync.Mutex
	bytes     []byte
	allocated []bool // one for each fakeUnit
	rules     []*armedRule
	closed    bool
	active    int

	// Safe from anywhere. Changed only by a Tx.
	backing atomic.Pointer[blockcore.Edge] // what shows where nothing is allocated; nil = zeroes
}

// fakeUnit is the granularity of allocation, in bytes, where Limits.Align is not more.
const fakeUnit = 512

// The abilities of a Fake. Bare takes them away.
var (
	_ blockcore.Driver    = (*Fake)(nil)
	_ blockcore.Writer    = (*Fake)(nil)
	_ blockcore.Flusher   = (*Fake)(nil)
	_ blockcore.Zeroer    = (*Fake)(nil)
	_ blockcore.Discarder = (*Fake)(nil)
	_ blockcore.Mapper    = (*Fake)(nil)
	_ blockcore.Limiter   = (*Fake)(nil)
	_ blockcore.Featurer  = (*Fake)(nil)
	_ blockcore.Resizer   = (*Fake)(nil)
	_ blockcore.Extender  = (*Fake)(nil)
	_ blockcore.Parent    = (*Fake)(nil)
)

// NewFake returns a disk of zeroes, nothing allocated.
func NewFake(o FakeOptions) *Fake {
	f := &Fake{name: o.Name, limits: o.Limits, features: o.Features, log: o.Log}
	if f.name == "" {
		f.name = "fake"
	}
	if f.limits.Align == 0 {
		f.limits.Align = 1
	}
	if o.SizeBytes == 0 {
		o.SizeBytes = 1 << 20
	}
	f.bytes = make([]byte, o.SizeBytes)
	f.allocated = make([]bool, (o.SizeBytes+f.unit()-1)/f.unit())
	return f
}

func (f *Fake) unit() int64 { return max(fakeUnit, f.limits.Align) }

// Add puts a rule behind those that there are. Safe from anywhere.
func (f *Fake) Add(r Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, &armedRule{rule: r})
}

// ClearRules removes all rules. What is held stays held. Safe from anywhere.
func (f *Fake) ClearRules() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = nil
}

// Contents returns a copy of a range. Safe from anywhere.
func (f *Fake) Contents(r blockcore.Range) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]byte(nil), f.bytes[r.Offset:r.End()]...)
}

// Active returns how many requests are inside the disk now, held ones too. Safe from anywhere.
func (f *Fake) Active() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.active
}

// Reopen makes a closed Fake usable again, with its contents. Safe from anywhere.
func (f *Fake) Reopen() *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = false
	return f
}

// Size returns the length. Safe from anywhere.
func (f *Fake) Size() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.bytes))
}

// Limits returns what was given to NewFake. Safe from anywhere.
func (f *Fake) Limits() blockcore.Limits { return f.limits }

// Features returns what was given to NewFake. Safe from anywhere.
func (f *Fake) Features() blockcore.Features { return f.features }

// request is one call of the driver's interface.
type request struct {
	op    Op
	r     blockcore.Range
	flags string
	do    func() // with mu held
}

func (q *request) String() string {
	if q.op == OpFlush || q.op == OpClose || q.op == OpResize {
		return q.op.String()
	}
	return q.op.String() + " " + q.r.String() + q.flags
}

// run takes a request through the rules.
func (f *Fake) run(t *blockcore.Task, q request) error {
	f.log.Add("%s: %s", f.name, q.String())
	err := f.execute(t, &q)
	f.log.Add("%s: %s: %s", f.name, q.String(), outcome(err))
	return err
}

func (f *Fake) execute(t *blockcore.Task, q *request) error {
	rule, err := f.enter(q)
	if err != nil {
		return err
	}
	defer f.leave()
	if rule.After {
		f.change(q)
		return rule.apply(t)
	}
	if err := rule.apply(t); err != nil {
		return err
	}
	f.change(q)
	return nil
}

func (f *Fake) enter(q *request) (Rule, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return Rule{}, fmt.Errorf("%s of a closed disk: %w", q.op, syscall.EBADF)
	}
	if !q.r.Within(int64(len(f.bytes))) || !q.r.Aligned(f.limits.Align) {
		return Rule{}, fmt.Errorf("%s %v breaks the contract of Driver: %w", q.op, q.r, syscall.EINVAL)
	}
	f.active++
	for _, a := range f.rules {
		if a.take(q.op, q.r) {
			return a.rule, nil
		}
	}
	return Rule{}, nil
}

func (f *Fake) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.active--
}

func (f *Fake) change(q *request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.do != nil {
		q.do()
	}
}

func outcome(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	}
	return err.Error()
}
