package sim

import (
	"flag"
	"fmt"
	"os"
	"sort"
	"testing"
	"testing/synctest"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "run this seed alone, and print all of its trace when it fails")
	seedsFlag = flag.Int("sim.seeds", seedsDefault, "how many seeds to run")
	firstFlag = flag.Uint64("sim.first", 1, "the first of them")
)

// simulate runs one seed in a bubble of its own. A run that fails leaves goroutines behind, which the bubble complains of.
func simulate(t *testing.T, cfg Config) (result Result) {
	t.Helper()
	defer func() {
		if p := recover(); p != nil && result.Failure == "" {
			result.Failure = fmt.Sprint("panic: ", p)
		}
	}()
	synctest.Test(t, func(t *testing.T) { result = Run(cfg) })
	return result
}

func config(seed uint64) Config {
	return Config{Seed: seed, Requests: 150, Changes: 8, Without: map[string]bool{}}
}

// Goal: whatever the order of things is, clients read what was written, nothing runs where a section says so, and every request and every change
// comes to its end. Method: see doc.go; each seed is one run.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		cfg := config(*seedFlag)
		cfg.Trace = true
		print(t, cfg, simulate(t, cfg), 1<<20)
		return
	}
	t.Logf("seeds %d to %d", *firstFlag, *firstFlag+uint64(*seedsFlag)-1)
	counts := map[string]int{}
	for i := range *seedsFlag {
		cfg := config(*firstFlag + uint64(i))
		result := simulate(t, cfg)
		if result.Failure != "" {
			t.Errorf("seed %d: %s", cfg.Seed, result.Failure)
			cfg = shrink(t, cfg)
			print(t, cfg, simulate(t, cfg), 60)
			t.Fatalf("the whole of it: go test ./internal/sim -run TestSeeds -sim.seed=%d", cfg.Seed)
		}
		for what, n := range result.Counts {
			counts[what] += n
		}
	}
	for _, what := range happens {
		if counts[what] == 0 {
			t.Errorf("%s: not once in %d seeds", what, *seedsFlag)
		}
	}
	logCounts(t, counts)
}

// happens is what must have happened for all that is checked to mean something.
var happens = []string{
	"bitmaps added", "bitmaps changed", "bitmaps checked", "bitmaps found kept", "bitmaps merged", "bitmaps removed", "change done", "change failed", "closed", "control by a task", "copied up", "drain failed", "drain settled", "held", "injected in the graph",
	"job aborted", "job done", "move refused", "moved", "moved while held", "overlays", "overtaken",
	"reopened", "power cuts", "snapshots applied", "snapshots deleted", "snapshots taken",
}

func logCounts(t *testing.T, counts map[string]int) {
	var lines []string
	for what, n := range counts {
		lines = append(lines, fmt.Sprintf("%-20s %d", what, n))
	}
	sort.Strings(lines)
	for _, line := range lines {
		t.Log(line)
	}
}

// print shows the last lines of a run that failed.
func print(t *testing.T, cfg Config, result Result, lines int) {
	t.Helper()
	if result.Failure == "" {
		return
	}
	for _, line := range result.Trace[max(0, len(result.Trace)-lines):] {
		fmt.Fprintln(os.Stderr, line)
	}
	t.Errorf("seed %d, %d changes without %v, %d requests: %s", cfg.Seed, cfg.Changes, cfg.Without, cfg.Requests, result.Failure)
}

// shrink looks for a shorter run of the same seed that fails as well, in whatever way: fewer changes, kinds of changes left out, fewer requests.
func shrink(t *testing.T, cfg Config) Config {
	fails := func(smaller Config) bool {
		if simulate(t, smaller).Failure == "" {
			return false
		}
		cfg = smaller
		return true
	}
	for cfg.Changes > 1 {
		smaller := cfg
		smaller.Changes--
		if !fails(smaller) {
			break
		}
	}
	for _, kind := range changes {
		smaller := cfg
		smaller.Without = map[string]bool{kind.name: true}
		for name := range cfg.Without {
			smaller.Without[name] = true
		}
		fails(smaller)
	}
	for cfg.Requests > 10 {
		smaller := cfg
		smaller.Requests /= 2
		if !fails(smaller) {
			break
		}
	}
	cfg.Trace = true
	return cfg
}

// Goal: a seed that is printed can be run again. Method: the traces of some seeds are the same twice.
func TestSameSeedSameRun(t *testing.T) {
	for seed := range uint64(100) {
		cfg := config(1000 + seed)
		cfg.Trace = true
		first, second := simulate(t, cfg), simulate(t, cfg)
		for i := range min(len(first.Trace), len(second.Trace)) {
			if first.Trace[i] != second.Trace[i] {
				t.Fatalf("seed %d, line %d:\n%s\n%s", cfg.Seed, i, first.Trace[i], second.Trace[i])
			}
		}
		if first.Hash != second.Hash || len(first.Trace) == 0 {
			t.Fatalf("seed %d: %d and %d lines", cfg.Seed, len(first.Trace), len(second.Trace))
		}
	}
}
