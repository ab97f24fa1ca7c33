package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// sizeBytes is the length of the nodes: it stays in any page cache.
const sizeBytes = 64 << 20

func main() {
	ours := pflag.String("ours", "bin/nbd-dataplane", "our executable")
	times := pflag.Int("times", 30, "operations a round")
	rounds := pflag.Int("rounds", 12, "rounds; the daemons take turns")
	only := pflag.String("node", "", "only on this kind of node: null, raw or qcow2")
	change := pflag.String("change", "", "only this change, beside those that it is compared with: replace, reopen, snapshot or internal")
	pflag.Parse()
	debug.SetGCPercent(-1) // between changes it is asked for
	if err := compare(*ours, *only, *change, *rounds, *times); err != nil {
		fmt.Fprintln(os.Stderr, "pause:", err)
		os.Exit(1)
	}
}

// contestant is a daemon with an operation.
type contestant struct {
	kind kind
	op   operation
}

func compare(ours, only, change string, rounds, times int) error {
	ours, err := filepath.Abs(ours)
	if err != nil {
		return err
	}
	nbd, qsd := kind{"nbd-dataplane", []string{ours, "daemon"}}, kind{"qemu-storage-daemon", []string{"qemu-storage-daemon"}}
	replaces, reopens := operation{name: "replace", command: replace}, operation{name: "reopen", command: reopen}
	snapshots := operation{name: "snapshot", command: snapshot, prepare: overlay, timesMax: snapshotsMax}
	internals := operation{name: "internal", command: internalSnapshot, timesMax: snapshotsMax}
	plain := []contestant{{nbd, replaces}, {nbd, reopens}, {qsd, reopens}}
	external, internal := []contestant{{nbd, snapshots}, {qsd, snapshots}}, []contestant{{nbd, internals}, {qsd, internals}}
	fmt.Println("The longest time between two answers to a client (4 KiB, 70% reads, depth 32) that has a moment in common with a change of what is under it,")
	fmt.Println("in microseconds; \"normal\" is the same for as long a time without a change, \"pause\" what a change adds to the")
	fmt.Println("median of that, \"ratio\" the pause divided by that of the change that qemu-storage-daemon knows of such a node. Times in which other processes")
	fmt.Println("have used the processors are left out; threads of the kernel are others on null only: elsewhere they do the disk's work.")
	fmt.Printf("\n%-28s %-8s %17s %17s %17s %15s\n", "", "", "normal", "with a change", "pause", "ratio")
	fmt.Printf("%-6s %-21s %-8s%s\n", "node", "daemon", "change", strings.Repeat(fmt.Sprintf(" %8s %8s", "median", "p99"), 4))
	for _, c := range []struct {
		storage string
		all     []contestant
	}{{"null", plain}, {"raw", plain}, {"qcow2", external}, {"qcow2", internal}} {
		if only != "" && c.storage != only || change != "" && !makes(c.all, change) {
			continue
		}
		if err := one(c.storage, c.all, rounds, times); err != nil {
			return err
		}
	}
	return nil
}

// makes reports whether one of the contestants makes a change of this name.
func makes(all []contestant, change string) bool {
	return slices.ContainsFunc(all, func(c contestant) bool { return c.op.name == change })
}

// one compares the contestants on one kind of storage, round by round.
func one(storage string, all []contestant, rounds, times int) error {
	dir, err := os.MkdirTemp("/var/tmp", "pause")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "disk")
	for _, name := range []string{file, file + ".other"} {
		if err := os.WriteFile(name, make([]byte, sizeBytes), 0o600); err != nil {
			return err
		}
	}
	sums := make([]gaps, len(all))
	for round := range rounds {
		for i := range all {
			at := (round + i) % len(all)
			c := all[at]
			if err := renew(storage, file); err != nil {
				return err
			}
			d, err := start(c.kind, storage, file)
			if err != nil {
				return err
			}
			g, err := measure(d, c.op, storage, file, times)
			if err != nil {
				return fmt.Errorf("%s: %w", c.kind.name, err)
			}
			sums[at].add(g)
		}
	}
	peer := sums[len(all)-1].pause()
	for i, c := range all {
		print(storage, c, sums[i], peer)
	}
	return nil
}

// renew makes images new that the last daemon has changed in a way of its own.
func renew(storage, file string) error {
	if storage != "qcow2" {
		return nil
	}
	for _, name := range []string{file, file + ".other"} {
		if err := createImage(name); err != nil {
			return err
		}
	}
	return nil
}

// print writes a row; peer is the pause that it is compared with.
func print(storage string, c contestant, g gaps, peer pause) {
	us := func(ns float64) float64 { return ns / 1000 }
	own := g.pause()
	fmt.Printf("%-6s %-21s %-8s %8.0f %8.0f %8.0f %8.0f %8.0f %8.0f %8s %8s\n", storage, c.kind.name, c.op.name,
		us(percentile(g.without, 50)), us(percentile(g.without, 99)), us(percentile(g.with, 50)), us(percentile(g.with, 99)),
		us(own.median), us(own.p99), ratio(own.median, peer.median), ratio(own.p99, peer.p99))
	fmt.Printf("%-28s %d with a change and %d without; %d more left out, as others used the processors\n", "", len(g.with), len(g.without), g.disturbed)
	if len(g.phases) == 0 {
		return
	}
	fmt.Printf("%-28s %s", "", "of which its section:")
	for _, phase := range phases {
		fmt.Printf(" %s %.0f/%.0f", phase, us(percentile(g.phases[phase], 50)), us(percentile(g.phases[phase], 99)))
	}
	fmt.Println()
}

// pause is what changes add to the median of windows without one.
type pause struct{ median, p99 float64 }

func (g gaps) pause() pause {
	normal := percentile(g.without, 50)
	return pause{max(percentile(g.with, 50)-normal, 0), max(percentile(g.with, 99)-normal, 0)}
}

func ratio(own, peer float64) string {
	if peer == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", own/peer)
}

// percentile of values, which it sorts.
func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[min(len(values)*p/100, len(values)-1)]
}
