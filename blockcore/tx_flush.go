package blockcore

import (
	"errors"
	"fmt"
	"time"

	"nbd-dataplane/internal/check"
)

// Flush makes durable what was acknowledged to those who use nodes; all of it, if they are drained. It is a part of a change so that
// nobody moves, reopens or removes a node meanwhile; who holds a section does not wait for the disk.
func (tx *Tx) Flush(nodes ...*Node) error {
	check.Invariant(!tx.byLoop, "a loop that changes the graph would wait for a flush")
	g := tx.graph
	g.mu.Lock()
	err := g.has(nodes...)
	g.mu.Unlock()
	if err != nil {
		return err // its driver may be closed
	}
	for _, n := range nodes {
		if !n.can.keeps {
			continue
		}
		if err := g.doPatiently(n, n.flush); err != nil {
			return &FlushFailure{n, err}
		}
	}
	return nil
}

// flush has the driver of n flush, for no request. Whoever drains n waits for it, should its change have given up.
func (n *Node) flush(t *Task) (err error) {
	n.run(t, n.errand(opFlush), func(t *Task) { err = n.can.flusher.Flush(t) })
	return err
}

// errNoAnswer: what was begun on a loop has not come to its end, and goes on.
var errNoAnswer = errors.New("no answer")

// doPatiently runs fn on the loop of n for the control plane. Sections of others that end meanwhile are resumed.
func (g *Graph) doPatiently(n *Node, fn func(*Task) error) error {
	done := make(chan error, 1)
	c := n.Context()
	if !c.Post(func() { c.Spawn(BodyFunc(func(t *Task) { done <- fn(t) })) }) {
		return ErrContextClosed
	}
	patience := time.NewTimer(DrainMaxDefault)
	defer patience.Stop()
	for {
		rung := g.ends.next()
		g.resumeEnded()
		select {
		case err := <-done:
			return err
		case <-rung:
		case <-patience.C:
			return fmt.Errorf("%w after %v", errNoAnswer, DrainMaxDefault)
		}
	}
}
