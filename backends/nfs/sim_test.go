package nfs

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

var (
	simSeedFlag  = flag.Uint64("nfs.seed", 0, "run this seed of the simulation alone, and print all of its trace when it fails")
	simSeedsFlag = flag.Int("nfs.seeds", simSeedsDefault, "how many seeds to run")
	simFirstFlag = flag.Uint64("nfs.first", 1, "the first of them")
)

// simulate runs one seed in a bubble of its own. A run that fails leaves goroutines behind, which the bubble complains of.
func simulate(t *testing.T, cfg simConfig) (result simResult) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil && result.failure == "" {
			result.failure = fmt.Sprint("panic: ", p)
		}
	}()
	synctest.Test(t, func(t *testing.T) { result = runSimulation(t, cfg) })
	return result
}

func simConfigOf(seed uint64) simConfig { return simConfig{seed: seed, requests: 50, troubles: 12} }

// Goal: whatever a server and the network do, and in whatever order, clients read what was written, what was flushed is on stable storage, errors have a
// cause, and everything comes to its end.
//
// Method: each seed is a run of the driver as it is, on loops that are stepped (blockcore.Stepped), with the clock of testing/synctest, over pairs of sockets whose other ends are
// stepped as well. The server behind them is that of nfstest, which knows what is on its stable storage; that is looked at after each flush, FUA and loss.
//
// What may happen to a call is in simBads, and to the server and the network in simTroubles; sockets take and bring bytes in pieces of any size. Clients read, write,
// zero, flush, with and without FUA, and make the file longer; the control plane drains with and without deadlines, moves between loops, resizes, changes timeouts, throws clients out, and
// removes the node, sometimes while the server is away.
//
// What a server does not do: execute a call of one connection when another one has been made after it, or a WRITE that has timed out; drop data
// because of a COMMIT that was given up, and say so to nobody; take a call for another;
// lose what it has said to be stable.
func TestSimulation(t *testing.T) {
	if *simSeedFlag != 0 {
		cfg := simConfigOf(*simSeedFlag)
		cfg.trace = true
		simPrint(t, cfg, simulate(t, cfg), 1<<20)
		return
	}
	t.Logf("seeds %d to %d", *simFirstFlag, *simFirstFlag+uint64(*simSeedsFlag)-1)
	s := &simSeries{counts: map[string]int{}}
	t.Run("at once", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				s.run(t)
			})
		}
	})
	simCheckCounts(t, s.counts)
}

// simSeries is many seeds, which several goroutines take.
type simSeries struct {
	// Guarded by mu.
	mu     sync.Mutex
	taken  uint64
	failed bool
	counts map[string]int
}

// take returns the next seed.
func (s *simSeries) take() (seed uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken++
	return *simFirstFlag + s.taken - 1, s.taken <= uint64(*simSeedsFlag) && !s.failed
}

// put adds a result up, and reports whether it is the first failure.
func (s *simSeries) put(r simResult) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, n := range r.counts {
		s.counts[what] += n
	}
	first = r.failure != "" && !s.failed
	s.failed = s.failed || r.failure != ""
	return first
}

func (s *simSeries) run(t *testing.T) {
	for {
		seed, ok := s.take()
		if !ok {
			return
		}
		cfg := simConfigOf(seed)
		result := simulate(t, cfg)
		if s.put(result) {
			t.Errorf("seed %d: %s", cfg.seed, result.failure)
			cfg = simShrink(t, cfg)
			simPrint(t, cfg, simulate(t, cfg), 60)
			t.Fatalf("the whole of it: go test ./backends/nfs -run 'TestSimulation$' -nfs.seed=%d", cfg.seed)
		}
	}
}

// simCheckCounts sees to it that what is checked has happened.
func simCheckCounts(t *testing.T, counts map[string]int) {
	t.Helper()
	must := []string{"cancelled", "drained with calls in limbo", "drain failed", "drain settled", "failed", "moved", "removed and not flushed", "resized", "timed out"}
	for _, bad := range simBads {
		must = append(must, bad.name)
	}
	for _, trouble := range simTroubles {
		must = append(must, trouble.name)
	}
	slices.Sort(must)
	for _, what := range must {
		t.Logf("%-35s %d", what, counts[what])
		if !t.Failed() && counts[what] == 0 && *simSeedsFlag >= simSeedsDefault {
			t.Errorf("%s: not once in %d seeds", what, *simSeedsFlag)
		}
	}
}

// simPrint shows the last lines of a run that failed.
func simPrint(t *testing.T, cfg simConfig, result simResult, lines int) {
	t.Helper()
	if result.failure == "" {
		return
	}
	for _, line := range result.trace[max(0, len(result.trace)-lines):] {
		fmt.Fprintln(os.Stderr, line)
	}
	t.Errorf("seed %d, %d requests, %d troubles: %s", cfg.seed, cfg.requests, cfg.troubles, result.failure)
}

// simShrink looks for a shorter run of the same seed that fails as well, in whatever way.
func simShrink(t *testing.T, cfg simConfig) simConfig {
	fails := func(smaller simConfig) bool {
		if simulate(t, smaller).failure == "" {
			return false
		}
		cfg = smaller
		return true
	}
	for cfg.requests > 5 && fails(simConfig{seed: cfg.seed, requests: cfg.requests * 2 / 3, troubles: cfg.troubles}) {
	}
	for n := range cfg.troubles {
		if fails(simConfig{seed: cfg.seed, requests: cfg.requests, troubles: n}) {
			break
		}
	}
	cfg.trace = true
	return cfg
}

// Goal: a seed that is printed can be run again. Method: the traces of some seeds are the same twice.
func TestSimulationIsTheSameTwice(t *testing.T) {
	for seed := range uint64(50) {
		cfg := simConfigOf(1000 + seed)
		cfg.trace = true
		first, second := simulate(t, cfg), simulate(t, cfg)
		for i := range min(len(first.trace), len(second.trace)) {
			if first.trace[i] != second.trace[i] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", cfg.seed, i, first.trace[i], second.trace[i])
			}
		}
		if len(first.trace) != len(second.trace) || len(first.trace) == 0 {
			t.Fatalf("seed %d: %d and %d lines", cfg.seed, len(first.trace), len(second.trace))
		}
	}
}
