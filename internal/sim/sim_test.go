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
	seedFlag  = flag.Uint64("sim.seed", 0, "run this seed alone, with its trace")
	seedsFlag = flag.Int("sim.seeds", 1000, "how many seeds to run")
	firstFlag = flag.Uint64("sim.first", 1, "the first of them")
)

// simulate runs one seed in a bubble of its own. When a run fails, goroutines are left behind, which the bubble complains of.
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

func config(seed uint64) Config { return Config{Seed: seed, Requests: 150, Changes: 8} }

// Goal: whatever the order of things is, clients read what was written and every change comes to its end. Method: see doc.go; each
// seed is one run.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		cfg := config(*seedFlag)
		cfg.Trace = true
		report(t, cfg, simulate(t, cfg))
		return
	}
	counts := map[string]int{}
	for i := range *seedsFlag {
		cfg := config(*firstFlag + uint64(i))
		result := simulate(t, cfg)
		if result.Failure != "" {
			cfg.Trace = true
			report(t, cfg, simulate(t, cfg))
			t.Fatalf("seed %d failed", cfg.Seed)
		}
		for what, n := range result.Counts {
			counts[what] += n
		}
	}
	var lines []string
	for what, n := range counts {
		lines = append(lines, fmt.Sprintf("%8d %s", n, what))
	}
	sort.Strings(lines)
	for _, line := range lines {
		t.Log(line)
	}
}

const tail = 4000

func report(t *testing.T, cfg Config, result Result) {
	t.Helper()
	if result.Failure == "" {
		return
	}
	for _, line := range result.Trace[max(0, len(result.Trace)-tail):] {
		fmt.Fprintln(os.Stderr, line)
	}
	t.Errorf("seed %d: %s", cfg.Seed, result.Failure)
}
