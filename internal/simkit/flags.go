package simkit

import "flag"

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

// Seeds is how many seeds are run.
func (f *Flags) Seeds() int { return *f.seeds }
