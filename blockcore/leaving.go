package blockcore

import (
	"errors"
	"fmt"
)

// A node that was removed is closed when what it does by itself has ended, and that can take as long as a disk takes. A change of the graph does not wait
// for ever: it leaves such a node to itself. Its loop has to stay as long.

// Leaving returns the nodes that were removed and whose drivers may still have something to do on their AioContexts. Safe from anywhere.
func (g *Graph) Leaving() []*Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*Node
	for n, closes := range g.leaving {
		if closes || n.telling.Load() != 0 || n.InFlight() != 0 {
			all = append(all, n)
			continue
		}
		delete(g.leaving, n)
	}
	return all
}

// leaves notes that n is removed, and whether it is being closed.
func (g *Graph) leaves(n *Node, closes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaving[n] = closes
}

// left notes that n is closed.
func (g *Graph) left(n *Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.leaving, n)
}

// shut waits for what a removed node does by itself, and closes it. A driver that does not come back is left to itself. Who
// holds a section does not wait for a disk that is removed: ended ones are resumed meanwhile.
func (g *Graph) shut(n *Node) error {
	g.leaves(n, true)
	if err := n.settle(g.resumeEnded); err != nil {
		g.leaves(n, false)
		return fmt.Errorf("removed but not closed: %w", err)
	}
	err := g.doPatiently(n, func(t *Task) error {
		defer g.left(n)
		return n.close(t)
	})
	switch {
	case errors.Is(err, errNoAnswer):
		return fmt.Errorf("removed node %s has not closed and is left to itself: %w", n.name, err)
	case errors.Is(err, ErrContextClosed):
		g.left(n)
	default:
		g.orphan(n)
	}
	return err
}
