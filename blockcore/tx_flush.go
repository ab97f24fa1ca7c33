package blockcore

import (
	"context"

	"nbd-dataplane/internal/check"
)

// Flush makes durable what was acknowledged to those who use nodes; all of it, if they are drained. It is a part of a change so that
// nobody moves, reopens or removes a node meanwhile; who holds a section does not wait for the disk.
func (tx *Tx) Flush(nodes ...*Node) error {
	check.Invariant(!tx.byLoop, "a loop that changes the graph would wait for a flush")
	return tx.graph.flush(nodes)
}

// Flush is Tx.Flush where nothing else is changed: only that it failed is an event. It waits for its turn as long as ctx. Not on a loop.
func (g *Graph) Flush(ctx context.Context, why string, nodes ...*Node) error {
	return g.BetweenChanges(ctx, why, func() error {
		err := g.flush(nodes)
		if err != nil {
			g.emit(GraphUnchanged{Why: why, Err: err})
		}
		return err
	})
}

// flush expects the control plane to be held.
func (g *Graph) flush(nodes []*Node) error {
	g.mu.Lock()
	err := g.has(nodes...)
	g.mu.Unlock()
	if err != nil {
		return err // its driver may be closed
	}
	return flushEach(nodes, func(n *Node) error { return g.doPatiently(n, n.flush) })
}

// flushEach has flush flush one node after the other, as far as they keep anything.
func flushEach(nodes []*Node, flush func(*Node) error) error {
	for _, n := range nodes {
		if !n.keeps() {
			continue
		}
		if err := flush(n); err != nil {
			return &FlushFailure{n, err}
		}
	}
	return nil
}

// keeps reports whether a flush makes anything durable. Safe from anywhere.
func (n *Node) keeps() bool { return n.can.keeps }

// flush has the driver of n flush, for no request. Whoever drains n waits for it, should its change have given up.
func (n *Node) flush(t *Task) (err error) {
	n.run(t, n.errand(opFlush), func(t *Task) { err = n.can.flusher.Flush(t) })
	return err
}
