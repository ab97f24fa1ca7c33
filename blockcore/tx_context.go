package blockcore

import (
	"context"
	"fmt"
	"slices"
)

// Move brings n, and all that shares requests with it, to another AioContext, while clients go on: drained, and all or
// nothing. Not on a loop.
//
// Analogous to QEMU's bdrv_try_change_aio_context.
func (g *Graph) Move(ctx context.Context, n *Node, to *AioContext) error {
	why := fmt.Sprintf("move node %s to %s", n.name, to.name)
	d, err := g.Drain(ctx, DrainOptions{Why: why, Nodes: g.Component(n)})
	if err != nil {
		return err
	}
	defer d.End()
	return g.Update(ctx, why, func(tx *Tx) error { return tx.SetContext(d, n, to) })
}

// SetContext brings n, and all that shares requests with it, to another AioContext. Owners and drivers may refuse. d covers all
// of it.
func (tx *Tx) SetContext(d *Drained, n *Node, to *AioContext) error {
	g := tx.graph
	g.mu.Lock()
	nodes, roots := g.component(n)
	err := g.mayMove(nodes, roots, to)
	if err == nil && n.Context() != to {
		for _, m := range nodes {
			if !d.covers(m, nil) {
				err = fmt.Errorf("node %s came under node %s meanwhile; try again", m.name, n.name)
			}
		}
	}
	g.mu.Unlock()
	if err != nil || n.Context() == to {
		return err
	}
	return tx.move(nodes, roots, n.Context(), to)
}

// bring moves a node that nobody owns to where it is going to be used. What is owned moves by SetContext only.
func (tx *Tx) bring(n *Node, to *AioContext) error {
	from := n.Context()
	if from == to {
		return nil
	}
	g := tx.graph
	g.mu.Lock()
	nodes, roots := g.component(n)
	err := g.mayMove(nodes, roots, to)
	if err == nil && len(roots) > 0 {
		err = fmt.Errorf("node %s is used on AioContext %s by '%s' and cannot be brought to %s", n.name, from.name, roots[0].name, to.name)
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return tx.move(nodes, roots, from, to)
}

// mayMove asks everybody concerned. graph.mu is held.
func (g *Graph) mayMove(nodes []*Node, roots []*Root, to *AioContext) error {
	for _, n := range nodes {
		if n.Features().MainOnly && g.main != nil && to != g.main {
			return mainOnly(n.name, to)
		}
	}
	for _, r := range roots {
		if m, ok := r.owner.(Mover); ok {
			if err := m.MayMove(to); err != nil {
				return err
			}
		} else if !r.movable {
			return fmt.Errorf("Cannot change iothread of active block backend: %s", r.name)
		}
	}
	return nil
}

func mainOnly(name string, to *AioContext) error {
	return fmt.Errorf("node %s: its driver runs on the main AioContext only and cannot go to %s; leave out the iothread", name, to.name)
}

// SetMovable lets the AioContext of r change although its owner does not follow, or forbids it.
func (tx *Tx) SetMovable(r *Root, movable bool) {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	before := r.movable
	r.movable = movable
	tx.onUndo(func() { r.movable = before })
}

// move takes nodes and roots from one loop to the other; everything of it is quiet.
func (tx *Tx) move(nodes []*Node, roots []*Root, from, to *AioContext) error {
	if err := bringOver(nodes, roots, from, to); err != nil {
		return err
	}
	// Both loops are there still: who closes one has taken everything off it before.
	tx.undo = append(tx.undo, func() { _ = bringOver(nodes, roots, to, from) })
	return nil
}

func bringOver(nodes []*Node, roots []*Root, from, to *AioContext) error {
	var held []WaitQueue
	if err := from.Do(func(*Task) error { held = leaveLoop(nodes, roots, to); return nil }); err != nil {
		return fmt.Errorf("leaving AioContext %s: %w", from.name, err)
	}
	err := to.Do(func(*Task) error { enterLoop(nodes, roots, to); return nil })
	// A loop that is closed meanwhile goes on as long as somebody waits there.
	from.postAlways(func() {
		for i := range held {
			held[i].WakeAll()
		}
	})
	if err != nil {
		return fmt.Errorf("entering AioContext %s: %w", to.name, err)
	}
	return nil
}

// leaveLoop runs on the old loop, and returns who was held back there.
func leaveLoop(nodes []*Node, roots []*Root, to *AioContext) (held []WaitQueue) {
	for _, r := range roots {
		if m, ok := r.owner.(Mover); ok {
			m.Detach(to)
		}
		if r.throttle != nil {
			r.throttle.Move(to)
		}
		held = append(held, r.sendAway())
		r.ctx.Store(to)
	}
	for _, n := range nodes {
		n.chores.detach()
		if n.can.follower != nil {
			n.can.follower.Detach()
		}
		n.ctx.Store(to)
	}
	return held
}

// enterLoop runs on the new one.
func enterLoop(nodes []*Node, roots []*Root, to *AioContext) {
	for _, n := range slices.Backward(nodes) {
		if n.can.follower != nil {
			n.can.follower.Attach(to)
		}
		if !n.still {
			n.chores.resume()
		}
	}
	for _, r := range roots {
		if m, ok := r.owner.(Mover); ok {
			m.Attach(to)
		}
	}
}
