package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/proc"
)

// operation is a change of what is under a client.
type operation struct {
	name string
	// command is what makes it.
	command func(storage, file string, n int) ([]byte, error)
	// prepare what do needs, before the time begins that is looked at; nil = nothing.
	prepare func(d *daemon, storage, file string, n int) error
	// timesMax is how often it may be done to one daemon; 0 = as often as one likes.
	timesMax int
}

// reopen gives a node the options that it has: both daemons know it, and drain for it.
func reopen(storage, file string, _ int) ([]byte, error) {
	options := map[string]any{"driver": "file", "node-name": "d", "filename": file}
	if storage == "null" {
		options = map[string]any{"driver": "null-co", "node-name": "d", "size": int64(sizeBytes), "read-zeroes": true}
	}
	return message("blockdev-reopen", map[string]any{"options": []any{options}})
}

// replace has the export use the other node, and back. Only ours knows it.
func replace(_, _ string, n int) ([]byte, error) {
	from, to := "d", "other"
	if n%2 == 1 {
		from, to = to, from
	}
	return message("x-blockdev-replace", map[string]any{"node-name": from, "with": to})
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
func snapshot(_, _ string, n int) ([]byte, error) {
	return message("blockdev-snapshot", map[string]any{"node": overlayName(n - 1), "overlay": overlayName(n)})
}

// internalSnapshot takes one inside of the image.
func internalSnapshot(_, _ string, n int) ([]byte, error) {
	return message("blockdev-snapshot-internal-sync", map[string]any{"device": "d", "name": fmt.Sprintf("snapshot%d", n)})
}

// createImage makes an empty qcow2 image, in place of one that may be there.
func createImage(path string) error {
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", path, strconv.Itoa(sizeBytes)).CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img: %w: %s", err, out)
	}
	return nil
}

// watch measures how long a client hears nothing of its server while something goes on there. It remembers no more than it must: what it allocated
// would be the next client's pause.
type watch struct {
	// Guarded by mu.
	mu    sync.Mutex
	last  time.Time
	until time.Time // a silence that begins later does not count; zero = they all do
	most  time.Duration
}

// heard is called by the thread of the connection.
func (w *watch) heard(_ int, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last.IsZero() && (w.until.IsZero() || w.last.Before(w.until)) {
		w.most = max(w.most, at.Sub(w.last))
	}
	w.last = at
}

// begin is when something begins: a silence that has begun before, and not ended, counts.
func (w *watch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most, w.until = 0, time.Time{}
}

// end is when it has ended: a silence that goes on counts.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.until = time.Now()
}

// longest is the longest silence, in nanoseconds, that had a moment in common with the time from begin to end.
func (w *watch) longest() float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return float64(w.most)
}

const (
	// spaceBetween two operations is longer than the disturbance of one, and than any silence.
	spaceBetween = 20 * time.Millisecond
	// loadMax is longer than any measurement takes, which ends the load by stopping its server.
	loadMax = time.Hour
)

// gaps of one daemon, in nanoseconds: the longest silence during each operation, and in a time of the same length before it.
type gaps struct {
	with, without []float64
	kernel        bool // threads of the kernel are others
	disturbed     int  // times that others have used the processors
	phases        map[string][]float64
}

// phases of a section in their order, as our daemon calls them in its events.
var phases = []string{"throttle", "unplug", "quiesce", "settle", "held", "resume"}

// add takes what another round has found.
func (g *gaps) add(other gaps) {
	g.with, g.without = append(g.with, other.with...), append(g.without, other.without...)
	g.disturbed += other.disturbed
	if g.phases == nil {
		g.phases = map[string][]float64{}
	}
	for phase, values := range other.phases {
		g.phases[phase] = append(g.phases[phase], values...)
	}
}

const (
	// othersMax is how much of the processors others may use during a change. Who uses more may have stood in the way of the client, or
	// of the loop, for as long.
	othersMax = 150 * time.Microsecond
	// aftermath is looked at too: the last silence may end in it.
	aftermath = time.Millisecond
)

// look adds to list how long the client hears nothing while do goes on, unless others have used the processors meanwhile.
func (g *gaps) look(d *daemon, w *watch, list []float64, do func() error) ([]float64, error) {
	time.Sleep(spaceBetween)
	before, err := proc.Others(g.kernel, os.Getpid(), d.cmd.Process.Pid)
	if err != nil {
		return list, err
	}
	time.Sleep(aftermath) // of the census
	w.begin()
	if err := do(); err != nil {
		return list, err
	}
	w.end()
	time.Sleep(aftermath)
	after, err := proc.Others(g.kernel, os.Getpid(), d.cmd.Process.Pid)
	if err != nil {
		return list, err
	}
	time.Sleep(spaceBetween) // a silence that goes on comes to its end
	if after.Since(before) > othersMax {
		g.disturbed++
		return list, nil
	}
	return append(list, w.longest()), nil
}

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
	time.Sleep(10 * spaceBetween)                          // a warm-up
	g := gaps{phases: d.phases, kernel: storage == "null"} // elsewhere they do the disk's work
	took := time.Millisecond                               // the last operation; the first one may take as long
	for n := range times {
		if o.prepare != nil {
			if err := o.prepare(d, storage, file, n); err != nil {
				return g, fmt.Errorf("%s: %w", o.name, err)
			}
		}
		text, err := o.command(storage, file, n)
		if err != nil {
			return g, err
		}
		runtime.GC() // and at no other time
		if g.without, err = g.look(d, &w, g.without, func() error { time.Sleep(took); return nil }); err != nil {
			return g, err
		}
		g.with, err = g.look(d, &w, g.with, func() error {
			begin := time.Now()
			err := d.send(text)
			took = time.Since(begin)
			return err
		})
		if err == nil {
			err = d.understand()
		}
		if err != nil {
			return g, fmt.Errorf("%s: %w", o.name, err)
		}
		select {
		case err := <-done:
			ended = true
			return g, fmt.Errorf("%s: the client has ended: %w", o.name, err)
		default:
		}
	}
	return g, nil
}
