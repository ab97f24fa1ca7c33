package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"time"

	"nbd-dataplane/internal/bench/loadgen"
)

// operation is a change of what is under a client.
type operation struct {
	name string
	do   func(d *daemon, storage, file string, n int) error
	// prepare what do needs, before the time begins that is looked at; nil = nothing.
	prepare func(d *daemon, storage, file string, n int) error
	// timesMax is how often it may be done to one daemon; 0 = as often as one likes.
	timesMax int
}

// reopen gives a node the options that it has: both daemons know it, and drain for it.
func reopen(d *daemon, storage, file string, _ int) error {
	options := map[string]any{"driver": "file", "node-name": "d", "filename": file}
	if storage == "null" {
		options = map[string]any{"driver": "null-co", "node-name": "d", "size": int64(sizeBytes), "read-zeroes": true}
	}
	return d.do("blockdev-reopen", map[string]any{"options": []any{options}})
}

// replace has the export use the other node, and back. Only ours knows it.
func replace(d *daemon, _, _ string, n int) error {
	from, to := "d", "other"
	if n%2 == 1 {
		from, to = to, from
	}
	return d.do("x-blockdev-replace", map[string]any{"node-name": from, "with": to})
}

// snapshotsMax keeps the chain short that grows with each snapshot.
const snapshotsMax = 25

// overlay makes an empty image and has the daemon open it: the name is that of the node, or of the one that the export has at first.
func overlay(d *daemon, _, file string, n int) error {
	path := fmt.Sprintf("%s.overlay%d", file, n)
	if err := createImage(path); err != nil {
		return err
	}
	return d.do("blockdev-add", map[string]any{"driver": "qcow2", "node-name": overlayName(n), "backing": nil,
		"file": map[string]any{"driver": "file", "filename": path}})
}

func overlayName(n int) string {
	if n < 0 {
		return "d"
	}
	return fmt.Sprintf("overlay%d", n)
}

// snapshot puts the overlay over what the export has.
func snapshot(d *daemon, _, _ string, n int) error {
	return d.do("blockdev-snapshot", map[string]any{"node": overlayName(n - 1), "overlay": overlayName(n)})
}

// internalSnapshot takes one inside of the image.
func internalSnapshot(d *daemon, _, _ string, n int) error {
	return d.do("blockdev-snapshot-internal-sync", map[string]any{"device": "d", "name": fmt.Sprintf("snapshot%d", n)})
}

// createImage makes an empty qcow2 image, in place of one that may be there.
func createImage(path string) error {
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", path, strconv.Itoa(sizeBytes)).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img: %w: %s", err, out)
	}
	return nil
}

// watch is when a client heard of its server. The thread of the connection appends, the measuring goroutine takes.
type watch struct {
	// Guarded by mu.
	mu    sync.Mutex
	times []time.Time
}

func (w *watch) heard(_ int, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times = append(w.times, at)
}

// take returns what was heard so far, and forgets all but the last.
func (w *watch) take() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.times
	w.times = slices.Clone(all[max(len(all)-1, 0):])
	return all
}

const (
	// spaceBetween two operations is longer than the disturbance of one.
	spaceBetween = 20 * time.Millisecond
	// after an operation has returned the client may still feel it.
	after = 5 * time.Millisecond
	// loadMax is longer than any measurement takes, which ends the load by stopping its server.
	loadMax = time.Hour
)

// gaps of one daemon, in nanoseconds: the longest in each window with an operation, and in as many without.
type gaps struct{ with, without []float64 }

// measure runs the operation times times under load, and stops the daemon.
func measure(d *daemon, o operation, storage, file string, times int) (gaps, error) {
	if o.timesMax > 0 {
		times = min(times, o.timesMax)
	}
	var w watch
	load, err := loadgen.Open(loadgen.Spec{
		URI: d.uri, Mode: loadgen.Mixed, BlockBytes: 4096, Depth: 32, Conns: 1, RangeBytes: sizeBytes, Seed: 1, Heard: w.heard,
	})
	if err != nil {
		return gaps{}, err
	}
	done := make(chan error, 1)
	ended := false
	go func() {
		_, err := load.Run(loadgen.Limit{Duration: loadMax})
		done <- err
	}()
	defer func() {
		d.stop()
		if !ended {
			<-done // with the error of a connection whose server has gone
		}
		_ = load.Close()
	}()
	time.Sleep(10 * spaceBetween) // a warm-up
	var g gaps
	for n := range times {
		if o.prepare != nil {
			if err := o.prepare(d, storage, file, n); err != nil {
				return g, fmt.Errorf("%s: %w", o.name, err)
			}
		}
		w.take()
		time.Sleep(spaceBetween)
		g.without = append(g.without, longest(w.take()))
		begin := time.Now()
		if err := o.do(d, storage, file, n); err != nil {
			return g, fmt.Errorf("%s: %w", o.name, err)
		}
		time.Sleep(max(spaceBetween-time.Since(begin), after))
		g.with = append(g.with, longest(w.take()))
		select {
		case err := <-done:
			ended = true
			return g, fmt.Errorf("%s: the client has ended: %w", o.name, err)
		default:
		}
	}
	return g, nil
}

func longest(times []time.Time) float64 {
	var most time.Duration
	for i := 1; i < len(times); i++ {
		most = max(most, times[i].Sub(times[i-1]))
	}
	return float64(most)
}
