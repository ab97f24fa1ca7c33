package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
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
	// last is what ends the process, with a text for people; it is called by the timer.
	last  func(text string)
	timer *time.Timer // nil = no limit

	// Guarded by mu.
	mu    sync.Mutex
	doing string
	errs  []string // of what was done before
}

// guardStop begins to watch a stop. Without a limit it never does anything.
func guardStop(limit time.Duration, g *blockcore.Graph, last func(text string)) *stopGuard {
	s := &stopGuard{limit: limit, graph: g, last: last}
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
	// Loops may not answer, and nobody waits for long any more.
	abandoned := s.abandoned()
	s.mu.Lock()
	text := fmt.Sprintf("not stopped after %v, while %s: ended without waiting any longer", s.limit, s.doing)
	if abandoned = append(s.errs, abandoned...); len(abandoned) > 0 {
		text += "; abandoned: " + strings.Join(abandoned, "; ")
	}
	s.mu.Unlock()
	s.last(text)
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
