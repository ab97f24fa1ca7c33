package sim

import (
	"fmt"
	"maps"
	"sort"
	"testing"

	"nbd-dataplane/internal/simkit"
)

var flags = simkit.NewFlags("sim", seedsDefault)

var simulation = simkit.Simulation[Config]{
	Flags:   flags,
	Command: "go test ./internal/sim -run TestSeeds",
	Config: func(seed uint64) Config {
		return Config{Seed: seed, Requests: 150, Changes: 8, Without: map[string]bool{}}
	},
	Run:     func(_ *testing.T, cfg Config, traced bool) simkit.Result { return Run(cfg, traced) },
	Shorter: shorter,
	Describe: func(cfg Config) string {
		return fmt.Sprintf("seed %d, %d changes without %v, %d requests", cfg.Seed, cfg.Changes, cfg.Without, cfg.Requests)
	},
}

// Goal: whatever the order of things is, clients read what was written, nothing runs where a section says so, and every request and every change
// comes to its end. Method: see doc.go; each seed is one run.
func TestSeeds(t *testing.T) {
	counts := simulation.Test(t, 1)
	if counts == nil {
		return
	}
	flags.MustHappen(t, counts, happens)
	logCounts(t, counts)
}

// happens is what must have happened for all that is checked to mean something.
var happens = []string{
	"bitmaps added", "bitmaps changed", "bitmaps checked", "bitmaps found kept", "bitmaps merged", "bitmaps removed", "came after an orphan", "change done", "change failed", "clients gone", "closed", "control by a task", "copied up", "drain failed", "drain settled", "dropped", "ended early", "held", "injected in the graph",
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

// shorter has fewer changes, kinds of changes left out, fewer requests.
func shorter(cfg Config, fails func(Config) bool) Config {
	try := func(smaller Config) bool {
		if !fails(smaller) {
			return false
		}
		cfg = smaller
		return true
	}
	for cfg.Changes > 1 {
		smaller := cfg
		smaller.Changes--
		if !try(smaller) {
			break
		}
	}
	for _, kind := range changes {
		smaller := cfg
		smaller.Without = maps.Clone(cfg.Without)
		smaller.Without[kind.name] = true
		try(smaller)
	}
	for cfg.Requests > 10 {
		smaller := cfg
		smaller.Requests /= 2
		if !try(smaller) {
			break
		}
	}
	return cfg
}
