package blockcore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nbd-dataplane/internal/check"
)

// Move brings n, and all that shares requests with it, to another AioContext, while clients go on: drained, and all or
// nothing. Not on a loop.
//
// Analogous to QEMU's bdrv_try_change_aio_context.
func (g *Graph) Move(ctx context.Context, n *Node, to *AioContext) error {
	for {
		err := g.move(ctx, n, to)
		if !errors.Is(err, errJoined) || ctx.Err() != nil {
			return err
		}
	}
}

func (g *Graph) move(ctx context.Context, n *Node, to *AioContext) error {
	why := fmt.Sprintf("move node %s to %s", n.name, to.name)
	d, err := g.Drain(ctx, DrainOptions{Why: why, Nodes: []*Node{n}, connected: true})
	if err != nil {
		return err
	}
	defer d.End()
	return g.Update(ctx, why, func(tx *Tx) error { return tx.SetContext(d, n, to) })
}

// errJoined says that there is more to move than what was drained.
var errJoined = errors.New("try again")

// SetContext brings n, and all that shares requests with it, to another AioContext. Owners and drivers may refuse. d covers all
// of it.
func (tx *Tx) SetContext(d *Drained, n *Node, to *AioContext) error {
	g := tx.graph
	g.mu.Lock()
	err := g.has(n)
	nodes, roots := g.component(n)
	if err == nil {
		err = g.mayMove(nodes, roots, to)
	}
	if err == nil && n.Context() != to {
		for _, m := range nodes {
			if !d.covers(m, nil) {
				err = fmt.Errorf("node %s came under node %s meanwhile: %w", m.name, n.name, errJoined)
			}
		}
	}
	g.mu.Unlock()
	if err != nil || n.Context() == to {
		return err
	}
	return tx.move(nodes, roots, n.Context(), to)
}

// Bring moves a node that nobody owns, with all that shares requests with it, to where it is going to be used, in a section of its own.
func (tx *Tx) Bring(n *Node, to *AioContext) error {
	g := tx.graph
	g.mu.Lock()
	err := g.has(n)
	g.mu.Unlock()
	if err != nil {
		return err
	}
	return tx.bring(n, to)
}

// join has a node and its child to be on one loop: the parent's, or the child's where the child has an owner and the parent has none.
func (tx *Tx) join(parent, child *Node) error {
	err := tx.bring(child, parent.Context())
	if err != nil && tx.bring(parent, child.Context()) == nil {
		return nil
	}
	return err
}

// bring moves a node that nobody owns to where it is going to be used. What is owned moves by SetContext only.
func (tx *Tx) bring(n *Node, to *AioContext) error {
	from := n.Context()
	if from == to {
		return nil
	}
	check.Invariant(!tx.byLoop, "a loop that changes the graph would wait for node %s to move", n.name)
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
	return tx.quietly(nodes, func() error { return tx.move(nodes, nil, from, to) })
}

// quietly does something to nodes that nobody owns in a section of its own: what they do by themselves has ended. They go on with the
// change, and not sooner, though the section of somebody else ends: they may have to be brought back.
func (tx *Tx) quietly(nodes []*Node, fn func() error) error {
	g := tx.graph
	var w walk
	g.mu.Lock()
	for _, n := range nodes {
		w.quiesceNode(n)
	}
	w.tell(g)
	g.mu.Unlock()
	tx.hushed = append(tx.hushed, nodes...)
	for _, n := range nodes {
		if err := n.settle(g.resumeEnded); err != nil {
			return err
		}
	}
	return fn()
}

// settle waits until nothing is in flight in n, which nobody can ask for anything, and calls meanwhile at each ring. Not on a loop.
func (n *Node) settle(meanwhile func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), DrainMaxDefault)
	defer cancel()
	for {
		rung := n.graph.bell.next()
		if n.telling.Load() == 0 && n.InFlight() == 0 {
			return nil
		}
		meanwhile()
		select {
		case <-rung:
		case <-ctx.Done():
			return fmt.Errorf("node %s has %d operations in flight: %w", n.name, n.InFlight(), ctx.Err())
		}
	}
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
	if err := voyage(nodes, roots, from, to); err != nil {
		return err
	}
	tx.undo = append(tx.undo, func() {
		err := voyage(nodes, roots, to, from)
		check.Invariant(err == nil, "nodes cannot return to AioContext %s: %v", from.name, err)
	})
	return nil
}

// voyage is a move that is made or not. A loop that nobody can come back from is not left: who closes a context takes everything off
// it before.
func voyage(nodes []*Node, roots []*Root, from, to *AioContext) error {
	if err := to.Do(func(*Task) error { return nil }); err != nil {
		return fmt.Errorf("entering AioContext %s: %w", to.name, err)
	}
	var away []WaitQueue
	if err := from.Do(func(*Task) error { away = leaveLoop(nodes, roots, to); return nil }); err != nil {
		return fmt.Errorf("leaving AioContext %s: %w", from.name, err)
	}
	err := to.Do(func(*Task) error { enterLoop(nodes, roots, to); return nil })
	if err != nil {
		_ = from.Do(func(*Task) error { enterLoop(nodes, roots, from); return nil })
		err = fmt.Errorf("entering AioContext %s: %w", to.name, err)
	}
	// Requests that were held begin again only now that there is a side that is ready for them.
	from.Post(func() {
		for i := range away {
			away[i].WakeAll()
		}
	})
	return err
}

// leaveLoop runs on the old loop. It returns the requests that were held there.
func leaveLoop(nodes []*Node, roots []*Root, to *AioContext) (away []WaitQueue) {
	for _, r := range roots {
		check.Invariant(r.inFlight.Load() == 0, "Root %q is moved with %d requests in flight", r.name, r.inFlight.Load())
		if m, ok := r.owner.(Mover); ok {
			m.Detach(to)
		}
		if r.throttle != nil {
			r.throttle.Move(to)
		}
		away = append(away, r.sendAway())
		r.ctx.Store(to) // the last: from now on r belongs to the other loop
	}
	for _, n := range nodes {
		check.Invariant(n.inFlight.Load() == 0, "node %s is moved with %d requests in flight", n.name, n.inFlight.Load())
		n.chores.detach()
		if n.can.follower != nil {
			n.can.follower.Detach()
		}
		n.ctx.Store(to)
	}
	return away
}

// enterLoop runs on the new one, or on the old one if that could not be entered.
func enterLoop(nodes []*Node, roots []*Root, on *AioContext) {
	for _, n := range slices.Backward(nodes) {
		n.ctx.Store(on)
		if n.can.follower != nil {
			n.can.follower.Attach(on)
		}
		if !n.still {
			n.chores.resume()
		}
	}
	for _, r := range roots {
		r.throttle.Move(on)
		r.ctx.Store(on)
		if m, ok := r.owner.(Mover); ok {
			m.Attach(on)
		}
	}
}
