package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"nbd-dataplane/internal/bench/harness"
	"nbd-dataplane/internal/bench/server"
)

// results is the file that --json writes.
type results struct {
	Machine  machine              `json:"machine"`
	Rounds   int                  `json:"rounds"`
	Seconds  float64              `json:"seconds"`
	FileMiB  int64                `json:"file_mib"`
	Compared []harness.Comparison `json:"compared"`
	Idle     []harness.Idle       `json:"idle,omitempty"`
	Startup  []harness.Startup    `json:"startup,omitempty"`

	Snapshots []harness.Snapshots `json:"snapshots,omitempty"`
}

// compare is the program: it plans, builds, measures, reports.
func compare(ctx context.Context, f flags) error {
	p, err := f.plan()
	if err != nil {
		return err
	}
	if f.list {
		return list(f)
	}
	there, missing := installed(p.options.Servers)
	for _, k := range missing {
		fmt.Fprintf(os.Stderr, "%s is not installed and is left out\n", k.Program)
	}
	p.options.Servers = there
	p.options.Out, p.options.Progress = os.Stdout, os.Stderr
	if _, err := exec.LookPath("fio"); err != nil {
		fmt.Fprintln(os.Stderr, "fio is not installed, and the workloads it drives are left out")
		p.options.Workloads = slices.DeleteFunc(p.options.Workloads, func(w harness.Workload) bool { return w.Client == harness.Fio })
	}
	dir, err := os.MkdirTemp("", "nbd-bench-bin-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if p.options.Programs, err = build(ctx, dir, f.ours, there); err != nil {
		return err
	}
	r := results{Machine: describe(there), Rounds: p.options.Rounds, Seconds: p.options.Duration.Seconds(), FileMiB: f.fileMiB}
	r.Machine.print(os.Stdout)
	err = measure(ctx, f, p, &r)
	return errors.Join(err, r.save(f.json))
}

// measure fills r; after an error it holds what was measured before.
func measure(ctx context.Context, f flags, p plan, r *results) (err error) {
	if p.startup {
		if r.Startup, err = harness.MeasureStartup(ctx, p.options, f.starts); err != nil {
			return err
		}
	}
	if p.idle {
		ours := p.options
		if len(f.servers) == 0 { // a thousand connections are thousands of threads to some peers
			ours.Servers = slices.DeleteFunc(slices.Clone(ours.Servers), func(k server.Kind) bool { return !k.Ours })
		}
		if r.Idle, err = harness.MeasureIdle(ctx, ours, f.conns); err != nil {
			return err
		}
	}
	if p.snapshots {
		if r.Snapshots, err = harness.MeasureSnapshots(ctx, p.options); err != nil {
			return err
		}
	}
	if len(p.options.Workloads) > 0 {
		r.Compared, err = harness.Run(ctx, p.options)
	}
	return err
}

func (r results) save(path string) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("writing results: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func list(f flags) error {
	fmt.Println(startupName)
	fmt.Println(idleName)
	fmt.Println(snapshotName)
	for _, w := range f.matrix() {
		fmt.Println(w.Name())
	}
	var kinds []string
	for _, k := range server.Known() {
		mark := ""
		if k.Default {
			mark = "*"
		}
		kinds = append(kinds, k.Name+mark)
	}
	fmt.Println("servers:", strings.Join(kinds, " "))
	return nil
}

// build compiles what has to be compiled for the chosen servers.
func build(ctx context.Context, dir, ours string, kinds []server.Kind) (server.Programs, error) {
	p := server.Programs{Ours: ours}
	var err error
	if p.Bench, err = os.Executable(); err != nil {
		return p, fmt.Errorf("finding this program: %w", err)
	}
	if p.GoNBD, err = compile(ctx, filepath.Join(dir, "gonbd"), "./internal/bench/gonbd"); err != nil {
		return p, err
	}
	needed := slices.ContainsFunc(kinds, func(k server.Kind) bool { return k.Ours })
	if ours == "" && needed {
		if p.Ours, err = compile(ctx, filepath.Join(dir, "nbd-dataplane"), "./cmd/nbd-dataplane"); err != nil {
			return p, err
		}
	}
	p.Revisions, err = buildRevisions(ctx, dir, kinds)
	return p, err
}
