package nfs

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"nbd-dataplane/internal/simkit"
)

var simFlags = simkit.NewFlags("nfs", simSeedsDefault)

var simulation = simkit.Simulation[simConfig]{
	Flags:   simFlags,
	Command: "go test ./backends/nfs -run 'TestSimulation$'",
	Config:  func(seed uint64) simConfig { return simConfig{seed: seed, requests: 50, troubles: 12} },
	Run:     runSimulation,
	Shorter: simShorter,
	Describe: func(cfg simConfig) string {
		return fmt.Sprintf("seed %d, %d requests, %d troubles", cfg.seed, cfg.requests, cfg.troubles)
	},
}

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
// In some runs the file is opened by way of the port mapper and MOUNT, and locked; then somebody else may take it after a crash, and nothing is changed any more. Others come, look and
// go, or read beside a file that was reopened read-only.
//
// What a server does not do: execute a call of one connection when another one has been made after it; take a call for another; lose what it has said to be stable; refuse locks that nobody
// else has.
func TestSimulation(t *testing.T) {
	if counts := simulation.Test(t, runtime.GOMAXPROCS(0)); counts != nil {
		simCheckCounts(t, counts)
	}
}

// simCheckCounts sees to it that what is checked has happened.
func simCheckCounts(t *testing.T, counts map[string]int) {
	t.Helper()
	must := []string{"cancelled", "drained with calls in limbo", "drain failed", "drain settled", "failed", "moved", "removed and not flushed", "resized", "timed out"}
	must = append(must, "not opened", "opened", "somebody else takes the disk", "the loss of a lock is noticed")
	must = append(must, "a reopen is undone", "not reopened", "reopened read-only", "reopened read-only, with locks", "reopened to be written to", "somebody is in the way of a reopen")
	must = append(must, "a visitor has the disk", "a visitor looks and goes", "a visitor reads")
	for _, bad := range simBads {
		must = append(must, bad.name)
	}
	for _, bad := range simWireBads {
		must = append(must, bad.name)
	}
	for _, trouble := range simTroubles {
		must = append(must, trouble.name)
	}
	slices.Sort(must)
	for _, what := range must {
		t.Logf("%-35s %d", what, counts[what])
	}
	simFlags.MustHappen(t, counts, must)
}

// simShorter has fewer requests and troubles.
func simShorter(cfg simConfig, fails func(simConfig) bool) simConfig {
	for cfg.requests > 5 {
		smaller := simConfig{seed: cfg.seed, requests: cfg.requests * 2 / 3, troubles: cfg.troubles}
		if !fails(smaller) {
			break
		}
		cfg = smaller
	}
	for n := range cfg.troubles {
		if smaller := (simConfig{seed: cfg.seed, requests: cfg.requests, troubles: n}); fails(smaller) {
			return smaller
		}
	}
	return cfg
}

// Goal: a seed that is printed can be run again. Method: the traces of some seeds are the same twice.
func TestSimulationIsTheSameTwice(t *testing.T) { simulation.TestSameTwice(t, 50) }
