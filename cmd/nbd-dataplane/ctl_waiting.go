package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// waitingFor tells whom a drain waits for: first after a second, then ever less often. It asks over a connection of its own, since
// the first one waits for the drain.
type waitingFor struct {
	t       *ctl
	exports []string // by their names, as requests are listed
	nodes   []string
	owners  []string // nodes that may have something to do by themselves
	begun   time.Time
	pause   time.Duration
	tick    *time.Ticker
	second  *monitor // nil = not yet
}

// waitingFirst is when a drain is slow: an idle disk takes less than a millisecond.
const waitingFirst = time.Second

// culpritsShown is how many requests are told of.
const culpritsShown = 5

func newWaitingFor(t *ctl, covered covered) *waitingFor {
	return &waitingFor{
		t: t, exports: covered.names, nodes: covered.nodes, owners: slices.Concat(covered.nodes, covered.disks),
		begun: time.Now(), pause: waitingFirst, tick: time.NewTicker(waitingFirst),
	}
}

func (w *waitingFor) close() {
	w.tick.Stop()
	if w.second != nil {
		w.second.Close()
	}
}

// tell prints the oldest requests in flight. That it cannot ask is no reason to end the drain.
func (w *waitingFor) tell() {
	w.pause *= 2
	w.tick.Reset(w.pause)
	if w.second == nil {
		m, err := w.t.connect()
		if err != nil {
			return
		}
		w.second = m
	}
	var requests []requestAnswer
	if w.second.ask("x-query-inflight", nil, &requests) != nil {
		return
	}
	requests = slices.DeleteFunc(requests, func(q requestAnswer) bool {
		if q.By != "" {
			return !slices.Contains(w.owners, q.By)
		}
		return q.Held || !slices.Contains(w.exports, q.Export) && !slices.Contains(w.nodes, q.Node)
	})
	fmt.Fprintf(w.t.c.err, "%s: waiting for %d requests in flight, since %s\n", programName, len(requests), ageText(time.Since(w.begun)))
	for i := range requests[:min(culpritsShown, len(requests))] {
		fmt.Fprintln(w.t.c.err, "  "+requests[i].text())
	}
}

// askTelling has the server do what needs a drained section of its own, and tells whom that waits for.
func (t *ctl) askTelling(m *monitor, at target, command string, args any) error {
	return t.askOver(m, at.covered(), command, args)
}

// askOver is askTelling for what covers more than one.
func (t *ctl) askOver(m *monitor, over covered, command string, args any) error {
	answer := make(chan error, 1)
	go m.askOnce(command, args, answer)
	waiting := newWaitingFor(t, over)
	defer waiting.close()
	for {
		select {
		case err := <-answer:
			return err
		case <-waiting.tick.C:
			waiting.tell()
		}
	}
}

func (m *monitor) askOnce(command string, args any, answer chan<- error) {
	answer <- m.ask(command, args, nil)
}

func (at target) covered() covered {
	c := covered{nodes: []string{at.node}}
	if at.export != nil {
		c.names = []string{at.export.Name}
	}
	return c
}

// text is one line about a request.
func (q *requestAnswer) text() string {
	line := printable(q.Op)
	if q.Length != 0 {
		line += fmt.Sprintf(" of %s at %#x", sizeText(q.Length), q.Offset)
	}
	line += ", for " + ageText(microseconds(q.AgeUS))
	if q.Node != "" {
		line += ", in node " + printable(q.Node)
	}
	if q.Client != "" {
		line += ", " + printable(q.Client)
	}
	switch {
	case q.By == "":
		line += ", export " + printable(q.Export)
	case q.By != q.Node:
		line += ", for node " + printable(q.By)
	}
	return line
}

func readJSON(text json.RawMessage, to any) bool { return json.Unmarshal(text, to) == nil }
