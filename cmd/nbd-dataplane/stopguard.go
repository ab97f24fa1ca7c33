package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"nbd-dataplane/blockcore"
)

// stopTimeoutDefault bounds an orderly stop at our own doors: twice what clients have for their last replies, and less than the
// 90 seconds that systemd waits before it kills.
const stopTimeoutDefault = 2 * stopMax

// stopGuard ends the process when taking it down takes too long: storage that never answers holds a request, and with it the node and the
// event loop, for ever. What was not answered stays without an answer; what was not flushed has not been acknowledged as durable. QEMU has no such
// bound, and so there is none at its doors.
type stopGuard struct {
	// Immutable.
	limit time.Duration
	graph *blockcore.Graph // nil = the start did not come that far
	// hasten tries to have the stop come to its end first, for a reason; nil = nobody does.
	hasten func(reason string) bool
	// last is what ends the process, with a text for people; it is called by the timer.
	last  func(text string)
	timer *time.Timer // nil = no limit

	// Guarded by mu.
	mu    sync.Mutex
	doing string
	errs  []string // of what was done before
}

// guardStop begins to watch a stop. Without a limit it never does anything.
func guardStop(limit time.Duration, g *blockcore.Graph, hasten func(reason string) bool, last func(text string)) *stopGuard {
	s := &stopGuard{limit: limit, graph: g, hasten: hasten, last: last}
	if limit > 0 {
		s.timer = time.AfterFunc(limit, s.giveUp)
	}
	return s
}

// step notes what is about to be done, and what came of what was done before.
func (s *stopGuard) step(doing string, errs ...error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doing = doing
	for _, err := range errs {
		if err != nil {
			s.errs = append(s.errs, err.Error())
		}
	}
}

// done ends the watch.
func (s *stopGuard) done() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

func (s *stopGuard) giveUp() {
	s.mu.Lock()
	reason := fmt.Sprintf("not stopped after %v, while %s", s.limit, s.doing)
	s.mu.Unlock()
	if s.hasten != nil && s.hasten(reason) {
		return
	}
	// Loops may not answer, and nobody waits for long any more.
	abandoned := s.abandoned()
	s.mu.Lock()
	text := reason + ": ended without waiting any longer"
	if abandoned = append(s.errs, abandoned...); len(abandoned) > 0 {
		text += "; abandoned: " + strings.Join(abandoned, "; ")
	}
	s.mu.Unlock()
	s.last(text)
}

// hastenMax is how long a stop may still take when what waited for servers that do not answer was ended early.
const hastenMax = 2 * time.Second

// haste has what waits for a server that does not answer end early, at the end of all patience, and reports whether the stop has come to its end then: the
// other images are flushed and closed as they should be. Clients are cut off first, and so hear of no error.
type haste struct {
	// Immutable.
	journal *journal
	stopped chan struct{} // closed at the end of the stop

	// Safe from anywhere.
	made atomic.Bool
}

func (h *haste) make(reason string, g *blockcore.Graph, cut func()) bool {
	if g == nil {
		return false
	}
	cut()
	if !g.CancelAll() {
		return false
	}
	h.made.Store(true)
	h.journal.hurry()
	h.journal.warn(reason + ": what waits for NFS servers is ended early")
	select {
	case <-h.stopped:
		return true
	case <-time.After(hastenMax):
		return false
	}
}

// status is what a stop has come to: one that was made in haste is never as it should be.
func (h *haste) status(err error) error {
	if err == nil && h.made.Load() {
		return exitStatus(1)
	}
	return err
}

// hasten is haste for this server.
func (s *session) hasten(reason string) bool {
	return s.haste.make(reason, s.graph, func() {
		if s.server != nil {
			s.server.CutAll()
		}
	})
}

// hasten is the same for the daemon.
func (s *daemon) hasten(reason string) bool {
	return s.haste.make(reason, s.graph, s.plane.CutClients)
}

// abandonedMax is how many requests are named; the others are counted.
const abandonedMax = 8

// abandoned names the requests that nobody will answer, and the nodes that are not closed.
func (s *stopGuard) abandoned() []string {
	if s.graph == nil {
		return nil
	}
	var all []string
	requests := s.graph.Requests()
	for _, q := range requests[:min(len(requests), abandonedMax)] {
		all = append(all, q.String())
	}
	if more := len(requests) - abandonedMax; more > 0 {
		all = append(all, fmt.Sprintf("%d more requests", more))
	}
	for _, n := range s.graph.Nodes() {
		all = append(all, fmt.Sprintf("node %s is not flushed and closed", n.Name()))
	}
	return all
}

// abandon is the end of an impatient process: what others would trip over goes, and nothing is waited for.
func (s *session) abandon(text string) {
	s.abandoned.Store(true)
	for _, p := range s.places {
		p.close()
	}
	if s.privateDir != "" {
		os.RemoveAll(s.privateDir)
	}
	if s.pid != nil {
		os.Remove(s.pid.path)
	}
	s.journal.hurry()
	s.journal.warn(text)
	os.Exit(1)
}

// abandon is the same for the daemon.
func (s *daemon) abandon(text string) {
	for _, c := range s.chardevs {
		c.close()
	}
	if s.pid != nil {
		os.Remove(s.pid.path)
	}
	s.journal.hurry()
	s.journal.warn(text)
	os.Exit(1)
}
