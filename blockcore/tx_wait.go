package blockcore

import (
	"errors"
	"fmt"
	"time"
)

// A change waits for drivers, which may take as long as a disk does. Who holds a section does not wait with it: those that end meanwhile are resumed.

// errNoAnswer: what was begun on a loop has not come to its end, and goes on.
var errNoAnswer = errors.New("no answer")

// do runs fn on the loop of n for the control plane, as long as it takes.
func (g *Graph) do(n *Node, fn func(*Task) error) error { return g.doUntil(n, nil, fn) }

// doPatiently is do of what may be left to itself after a while.
func (g *Graph) doPatiently(n *Node, fn func(*Task) error) error {
	patience := time.NewTimer(DrainMaxDefault)
	defer patience.Stop()
	return g.doUntil(n, patience.C, fn)
}

func (g *Graph) doUntil(n *Node, late <-chan time.Time, fn func(*Task) error) error {
	done := make(chan error, 1)
	c := n.Context()
	if !c.Post(func() { c.Spawn(BodyFunc(func(t *Task) { done <- fn(t) })) }) {
		return ErrContextClosed
	}
	for {
		rung := g.toResume.next()
		g.resumeEnded()
		select {
		case err := <-done:
			return err
		case <-rung:
		case <-late:
			return fmt.Errorf("%w after %v", errNoAnswer, DrainMaxDefault)
		}
	}
}
