package blockcore

import (
	"context"
	"fmt"
)

// Change drains what o names, changes the graph as by Update, and ends the section: clients stand still as short as can be. Where
// nothing is left to do once the change stands, they go on before anybody is told of it; and of the section, too, it is told only
// then. Not on a loop.
//
// What is Brief, and concerns one loop, that loop does itself if it finds that nothing is in flight: between two things that it
// does, so that clients do not wait until the control plane has been woken, and the loop again.
func (g *Graph) Change(ctx context.Context, o DrainOptions, fn func(*Tx, *Drained) error) error {
	short, cancel := context.WithTimeout(ctx, o.max())
	defer cancel()
	d, err := g.section(short, o)
	if err != nil {
		return err
	}
	defer d.End()
	defer d.wakes()
	if o.Brief {
		if done, err := g.changeAtOnce(short, d, o.Flush, fn); done {
			return err
		}
	} else if err := g.begin(short, d, false); err != nil {
		return err
	}
	if err := g.settle(short, d); err != nil {
		return err
	}
	d.wakes()
	return g.changeStill(ctx, d, o.Flush, fn)
}

// changeStill makes the change in a section that is still.
func (g *Graph) changeStill(ctx context.Context, d *Drained, flush []*Node, fn func(*Tx, *Drained) error) error {
	if err := g.lock(ctx); err != nil {
		d.announce()
		return fmt.Errorf("%s: %w", d.why, err)
	}
	defer g.unlock()
	tx := g.newTx()
	d.wakes()
	err := tx.Flush(flush...)
	d.wakes()
	if err == nil {
		err = tx.apply(func(tx *Tx) error { return fn(tx, d) })
	}
	return tx.conclude(d.why, d, err)
}

// goOn ends d, if it is not nil and has not ended, and has the loops go on at once. That it is over is told by what is returned, which is called
// when all is told that comes before. The control plane is held.
func (d *Drained) goOn() (over func()) {
	if d == nil {
		return func() {}
	}
	d.markEnded()
	all := d.graph.resumeAll()
	return func() {
		for _, r := range all {
			r.taken()
		}
	}
}

// wakes tells who asked for it that its change has waited, and goes on.
func (d *Drained) wakes() {
	if d.graph.onWake != nil {
		d.graph.onWake(d.why)
	}
}
