package simkit

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"testing/synctest"
)

// Simulation is how a world is run, of which C says how long and of what kind.
type Simulation[C any] struct {
	Flags *Flags
	// Command is how a test that runs seeds is repeated, up to the flags.
	Command string
	// Config is what a seed is run with.
	Config func(seed uint64) C
	// Run runs it. It is called in a bubble of testing/synctest.
	Run func(t *testing.T, cfg C, traced bool) Result
	// Shorter looks for a run of the same seed that fails as well and is shorter.
	Shorter func(cfg C, fails func(C) bool) C
	// Describe tells of a run for a message, but for its failure.
	Describe func(cfg C) string
}

// tail is how many lines of the trace of a run that fails are printed.
const tail = 60

// run runs one seed in a bubble of its own. A run that fails leaves goroutines behind, which the bubble complains of.
func (s *Simulation[C]) run(t *testing.T, cfg C, traced bool) (r Result) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil && r.Failure == "" {
			r.Failure = fmt.Sprint("panic: ", p)
		}
	}()
	synctest.Test(t, func(t *testing.T) { r = s.Run(t, cfg, traced) })
	return r
}

// Test runs the seeds that the flags say, so many at once, up to the first that fails, and returns how often things have happened. It returns nil when a seed
// was asked for, of which all of the trace is printed if it fails.
func (s *Simulation[C]) Test(t *testing.T, atOnce int) map[string]int {
	if seed := *s.Flags.seed; seed != 0 {
		s.print(t, s.Config(seed), 1<<20)
		return nil
	}
	first, n := *s.Flags.first, uint64(*s.Flags.seeds)
	t.Logf("seeds %d to %d", first, first+n-1)
	all := &series{next: first, end: first + n, counts: map[string]int{}}
	if atOnce == 1 {
		s.runAll(t, all)
		return all.counts
	}
	t.Run("at once", func(t *testing.T) {
		for i := range atOnce {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				s.runAll(t, all)
			})
		}
	})
	return all.counts
}

func (s *Simulation[C]) runAll(t *testing.T, all *series) {
	for {
		seed, ok := all.take()
		if !ok {
			return
		}
		cfg := s.Config(seed)
		r := s.run(t, cfg, false)
		if all.put(r) {
			t.Errorf("seed %d: %s", seed, r.Failure)
			cfg = s.Shorter(cfg, func(smaller C) bool { return s.run(t, smaller, false).Failure != "" })
			s.print(t, cfg, tail)
			t.Fatalf("the whole of it: %s -%s.seed=%d", s.Command, s.Flags.prefix, seed)
		}
	}
}

// print runs it again, and shows the last lines of its trace if it fails.
func (s *Simulation[C]) print(t *testing.T, cfg C, lines int) {
	t.Helper()
	r := s.run(t, cfg, true)
	if r.Failure == "" {
		return
	}
	for _, line := range r.Trace[max(0, len(r.Trace)-lines):] {
		fmt.Fprintln(os.Stderr, line)
	}
	t.Errorf("%s: %s", s.Describe(cfg), r.Failure)
}

// TestSameTwice runs n seeds twice and compares the traces.
func (s *Simulation[C]) TestSameTwice(t *testing.T, n int) {
	for i := range uint64(n) {
		seed := 1000 + i
		one, two := s.run(t, s.Config(seed), true).Trace, s.run(t, s.Config(seed), true).Trace
		for k := range min(len(one), len(two)) {
			if one[k] != two[k] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", seed, k, one[k], two[k])
			}
		}
		if len(one) != len(two) || len(one) == 0 {
			t.Fatalf("seed %d: %d and %d lines", seed, len(one), len(two))
		}
	}
}

// series is many seeds, which several goroutines take.
type series struct {
	// Guarded by mu.
	mu        sync.Mutex
	next, end uint64
	failed    bool
	counts    map[string]int
}

// take returns the next seed.
func (a *series) take() (seed uint64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == a.end || a.failed {
		return 0, false
	}
	a.next++
	return a.next - 1, true
}

// put adds a result up, and reports whether it is the first failure.
func (a *series) put(r Result) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for what, n := range r.Counts {
		a.counts[what] += n
	}
	first = r.Failure != "" && !a.failed
	a.failed = a.failed || r.Failure != ""
	return first
}
