package blockcore

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Tx is a change of the graph that is being made: its methods change the graph at once, note how to undo it, and the whole
// of it stands or falls together.
//
// A method that moves an edge demands the Drained that covers who uses the edge: I/O takes no lock, so an edge changes only
// where nothing is in flight.
//
// Analogous to QEMU's Transaction of graph changes.
type Tx struct {
	graph  *Graph
	walk   walk
	fresh  map[*Node]bool // made by this change: nobody uses them yet
	reopen map[*Node]bool // reopened by this change
	byLoop bool           // a loop makes the change: nothing may wait for one
	hushed []*Node        // by this change: they go on when it stands, or is undone
	undo   []func()
	finish []func() error // once the change stands
}

// Update changes the graph, all or nothing: when fn or the permissions of the graph that it makes say no, everything is as
// before. One Update at a time; who waits for its turn waits as long as ctx. Not on a loop: a Task uses Task.Control. fn looks up
// by name what it changes, since the graph may have changed before it.
//
// What happens after the change stands, such as closing what was removed, may fail too; the change stands nevertheless.
func (g *Graph) Update(ctx context.Context, why string, fn func(*Tx) error) error {
	if err := g.lock(ctx); err != nil {
		return fmt.Errorf("%s: %w", why, err)
	}
	defer g.unlock()
	tx := g.newTx()
	return tx.conclude(why, nil, tx.apply(fn))
}

func (g *Graph) newTx() *Tx {
	return &Tx{graph: g, fresh: map[*Node]bool{}, reopen: map[*Node]bool{}}
}

// apply makes the change. When that fails, conclude undoes it.
func (tx *Tx) apply(fn func(*Tx) error) error {
	if err := fn(tx); err != nil {
		return err
	}
	return tx.commit()
}

// conclude does the rest of a change that was made, or was not for err. d is a section that is for this change alone, and ends here if nothing is
// left to be done in it; nil = there is none. The control plane is held.
func (tx *Tx) conclude(why string, d *Drained, err error) error {
	g := tx.graph
	defer g.bell.ring() // who was waited for may not be covered any more
	if err != nil {
		tx.rollback()
		d.announce()
		g.emit(GraphUnchanged{Why: why, Err: err})
		return err
	}
	if len(tx.finish) == 0 {
		defer d.goOn()() // clients first
	}
	d.announce()
	g.emit(GraphChanged{Why: why})
	var errs []error
	for _, finish := range tx.finish {
		errs = append(errs, finish())
	}
	return errors.Join(errs...)
}

// BetweenChanges calls fn while nobody changes the graph: what fn sees of it is no change that may still be undone. It waits for its turn as long
// as ctx. Not on a loop; fn neither drains nor updates.
func (g *Graph) BetweenChanges(ctx context.Context, why string, fn func() error) error {
	if err := g.lock(ctx); err != nil {
		return fmt.Errorf("%s: %w", why, err)
	}
	defer g.unlock()
	return fn()
}

// Undo notes how to take back what somebody has done with this change that is no change of the graph, and with done, which may be nil, what is left
// to be done once it stands.
func (tx *Tx) Undo(undo func(), done func() error) {
	tx.undo = append(tx.undo, undo)
	if done != nil {
		tx.finish = append(tx.finish, done)
	}
}

// commit checks the whole, has drivers do what they can do only then, and tells the loops.
func (tx *Tx) commit() error {
	if err := tx.agree(); err != nil {
		return err
	}
	locked, err := tx.lockOut()
	if err != nil {
		return err
	}
	if err := tx.mend(); err != nil {
		return err
	}
	for _, done := range locked {
		done()
	}
	tx.tell()
	return nil
}

// tell has everybody told what has changed for them, at the end of it.
func (tx *Tx) tell() {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range slices.Backward(tx.hushed) {
		tx.walk.resumeNode(n)
	}
	tx.hushed = nil
	tx.walk.tell(g)
}

// agree has everybody see the graph as it has become, and stores who may do what.
func (tx *Tx) agree() error {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := tx.learn(); err != nil {
		return err
	}
	undo, err := g.permit()
	if err != nil {
		return err
	}
	tx.undo = append(tx.undo, undo)
	return nil
}

// learn brings up to date what nodes say of themselves, children first, as filters say what is below them.
func (tx *Tx) learn() error {
	for _, n := range slices.Backward(tx.graph.parentsFirst()) {
		if n.can.limiter == nil && n.can.featurer == nil && n.can.checker == nil {
			continue
		}
		before := n.facts.Load()
		if err := n.learn(); err != nil {
			return err
		}
		if now := n.facts.Load(); before != nil && *now == *before {
			n.facts.Store(before)
		} else if before != nil {
			tx.undo = append(tx.undo, func() { n.facts.Store(before) })
		}
	}
	return nil
}

// rollback undoes everything.
func (tx *Tx) rollback() {
	for _, undo := range slices.Backward(tx.undo) {
		undo()
	}
	tx.tell()
}
