package blockcore

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
)

// A node that was removed is closed when what it does by itself has ended, and that can take as long as a disk takes. A change of the graph does not wait
// for ever: it leaves such a node to itself. Its loop has to stay as long.

// Leaving returns the nodes that were removed and whose drivers may still have something to do on their AioContexts. Safe from anywhere.
func (g *Graph) Leaving() []*Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLeft()
	return slices.Collect(maps.Keys(g.leaving))
}

// forgetLeft drops the nodes that have left from the list: a loop that closes one does not take graph.mu for it. It is held.
func (g *Graph) forgetLeft() {
	for n, closes := range g.leaving {
		if !closes.Load() && n.telling.Load() == 0 && n.InFlight() == 0 {
			delete(g.leaving, n)
		}
	}
}

// leaves notes that n is removed. Who closes it, or finds that nobody will, says so by what is returned.
func (g *Graph) leaves(n *Node) (closes *atomic.Bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLeft()
	closes = new(atomic.Bool)
	closes.Store(true)
	g.leaving[n] = closes
	return closes
}

// shutAll is shut for nodes that go together, parents first. All of them know before the first one is closed: what it writes then goes to those below.
func (g *Graph) shutAll(gone []*Node) error {
	for _, n := range gone {
		n.parting.Store(true)
	}
	var errs []error
	for _, n := range gone {
		errs = append(errs, g.shut(n))
	}
	return errors.Join(errs...)
}

// shut waits for what a removed node does by itself, and closes it. A driver that does not come back is left to itself. Who
// holds a section does not wait for a disk that is removed: ended ones are resumed meanwhile.
func (g *Graph) shut(n *Node) error {
	closes := g.leaves(n)
	if err := n.settle(g.resumeEnded); err != nil {
		closes.Store(false)
		return fmt.Errorf("removed but not closed: %w", err)
	}
	err := g.doPatiently(n, func(t *Task) error {
		defer closes.Store(false)
		return n.close(t)
	})
	switch {
	case errors.Is(err, errNoAnswer):
		return fmt.Errorf("removed node %s has not closed and is left to itself: %w", n.name, err)
	case errors.Is(err, ErrContextClosed):
		closes.Store(false)
	default:
		g.orphan(n)
	}
	return err
}
