package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"nbd-dataplane/internal/bench/harness"
	"nbd-dataplane/internal/bench/server"
)

// flags are the command line.
type flags struct {
	quick   bool
	list    bool
	run     string
	servers []string
	rounds  int
	seconds float64
	warmUp  float64
	fileMiB int64
	dir     string
	json    string
	ours    string
	noCalls bool
	conns   int
	starts  int
}

func (f *flags) register(set *pflag.FlagSet) {
	set.BoolVar(&f.quick, "quick", false, "a reduced matrix, three rounds of one second, nearly without a warm-up")
	set.BoolVar(&f.list, "list", false, "list the workloads and servers, and measure nothing")
	set.StringVar(&f.run, "run", "", "measure what matches this `regexp` only (names as in --list)")
	set.StringSliceVar(&f.servers, "servers", nil, "measure these servers (default: those marked * in --list); nbd-dataplane@REVISION is ours of another revision")
	set.IntVar(&f.rounds, "rounds", 0, "samples of each server under each workload (default 3)")
	set.Float64Var(&f.seconds, "seconds", 0, "length of a sample (default 4, quick 1)")
	set.Float64Var(&f.warmUp, "warm-up", -1, "seconds of the same before it, not counted (default 2, quick 0.2); not with fio")
	set.Int64Var(&f.fileMiB, "file-mib", 1024, "size of the file served")
	set.StringVar(&f.dir, "dir", "/var/tmp", "directory for the file; on a real file system")
	set.StringVar(&f.json, "json", "", "write every sample to this `file`")
	set.StringVar(&f.ours, "ours", "", "our server's executable (default: build ./cmd/nbd-dataplane)")
	set.BoolVar(&f.noCalls, "no-syscalls", false, "do not count system calls")
	set.IntVar(&f.conns, "idle-conns", 1000, "connections of the benchmark named idle")
	set.IntVar(&f.starts, "starts", 11, "starts of the benchmark named startup")
}

// Benchmarks beside the matrix.
const (
	idleName     = "idle"
	startupName  = "startup"
	snapshotName = "snapshot"
)

// plan is what the flags ask for.
type plan struct {
	options harness.Options

	idle, startup, snapshots bool
}

func (f flags) plan() (plan, error) {
	f = f.withDefaults()
	name, err := regexp.Compile(f.run)
	if err != nil {
		return plan{}, fmt.Errorf("reading --run: %w", err)
	}
	kinds, err := f.kinds()
	if err != nil {
		return plan{}, err
	}
	p := plan{idle: name.MatchString(idleName), startup: name.MatchString(startupName), snapshots: name.MatchString(snapshotName)}
	p.options = harness.Options{
		Workloads: harness.Select(f.matrix(), name),
		Servers:   kinds,
		Rounds:    f.rounds,
		Duration:  time.Duration(f.seconds * float64(time.Second)),
		WarmUp:    time.Duration(f.warmUp * float64(time.Second)),
		Dir:       f.dir,
		FileBytes: f.fileMiB << 20,
		Syscalls:  !f.noCalls,
	}
	return p, nil
}

// withDefaults fills in what depends on other flags.
func (f flags) withDefaults() flags {
	seconds, warmUp := 4.0, 2.0
	if f.quick {
		seconds, warmUp = 1, 0.2
	}
	if f.rounds == 0 {
		f.rounds = 3
	}
	if f.warmUp < 0 {
		f.warmUp = warmUp
	}
	if f.seconds == 0 {
		f.seconds = seconds
	}
	return f
}

func (f flags) matrix() []harness.Workload {
	if f.quick {
		return harness.Quick()
	}
	return harness.Matrix()
}

// kinds are the chosen servers; by default those that are there.
func (f flags) kinds() ([]server.Kind, error) {
	known := server.Known()
	if len(f.servers) == 0 {
		return slices.DeleteFunc(known, func(k server.Kind) bool { return !k.Default }), nil
	}
	var chosen []server.Kind
	for _, name := range f.servers {
		if k, ok := server.AtRevision(name); ok {
			chosen = append(chosen, k)
			continue
		}
		i := slices.IndexFunc(known, func(k server.Kind) bool { return k.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("server %q: want one of %s, or nbd-dataplane@REVISION", name, strings.Join(names(known), ", "))
		}
		chosen = append(chosen, known[i])
	}
	return chosen, nil
}

func names(kinds []server.Kind) []string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.Name)
	}
	return all
}

// installed splits the servers into those whose program is on PATH (or ours to build)
// and those that are missing.
func installed(kinds []server.Kind) (there, missing []server.Kind) {
	for _, k := range kinds {
		if k.Program != "" {
			if _, err := exec.LookPath(k.Program); err != nil {
				missing = append(missing, k)
				continue
			}
		}
		there = append(there, k)
	}
	return there, missing
}
