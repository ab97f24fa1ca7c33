package simkit

import (
	"flag"
	"testing"
)

// Flags say which seeds a simulation runs, and whether mistakes are made on purpose.
type Flags struct {
	prefix  string
	seed    *uint64
	seeds   *int
	first   *uint64
	mutants *bool
}

// NewFlags declares the flags of a simulation, whose names begin with prefix and a dot.
func NewFlags(prefix string, seeds int) *Flags {
	return &Flags{
		prefix:  prefix,
		seed:    flag.Uint64(prefix+".seed", 0, "run this seed of the simulation alone, and print all of its trace when it fails"),
		seeds:   flag.Int(prefix+".seeds", seeds, "how many seeds to run"),
		first:   flag.Uint64(prefix+".first", 1, "the first of them"),
		mutants: flag.Bool(prefix+".mutants", false, "make mistakes on purpose, one at a time, which the simulation must find: minutes"),
	}
}

// seedsEnough is how many seeds bring everything that may happen. With fewer what is rare may be missing: under the race detector, where fewer are run, a run is not the same
// every time.
const seedsEnough = 1000

// MustHappen fails the test for each thing that has not happened once, if all went well and there were enough seeds.
func (f *Flags) MustHappen(t *testing.T, counts map[string]int, things []string) {
	t.Helper()
	if t.Failed() || *f.seeds < seedsEnough {
		return
	}
	for _, what := range things {
		if counts[what] == 0 {
			t.Errorf("%s: not once in %d seeds", what, *f.seeds)
		}
	}
}
