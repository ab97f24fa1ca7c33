package control

import (
	"context"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// setAccess makes a node read-only, or writable, and the files of it that were described with it; all else stays as it is.
func (p *Plane) setAccess(ctx context.Context, n *blockcore.Node, readOnly bool) error {
	nodes := p.inheritors(n, readOnly)
	if !readOnly {
		slices.Reverse(nodes) // children come first, which are written to by their parents
	}
	why := "make " + n.Name() + " writable"
	if readOnly {
		why = "make " + n.Name() + " read-only"
	}
	err := p.during(ctx, p.flushedOptions(why, nodes...), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		for _, n := range nodes {
			if err := tx.SetAccess(d, n, readOnly); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		p.noteAccess(nodes, readOnly)
	}
	return err
}

// inheritors are n and those below it that inherit from it, parents first.
func (p *Plane) inheritors(n *blockcore.Node, readOnly bool) []*blockcore.Node {
	all := []*blockcore.Node{n}
	for _, e := range n.Children() {
		child := e.Node()
		if e.Role() == blockcore.RoleBacking || !child.Implicit() || len(child.Parents()) > 1 {
			continue
		}
		if _, o := p.describe(child); readOnly || !o.saysReadOnly {
			all = append(all, p.inheritors(child, readOnly)...)
		}
	}
	return all
}

// noteAccess remembers what nodes are now.
func (p *Plane) noteAccess(nodes []*blockcore.Node, readOnly bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		if was := p.opened[n]; was != nil {
			o := *was.options
			o.ReadOnly = readOnly
			p.opened[n] = &opened{driver: was.driver, options: &o}
		}
	}
}

// whileWritable runs fn while a node is writable that is read-only otherwise.
func (p *Plane) whileWritable(ctx context.Context, n *blockcore.Node, fn func() error) error {
	if n.Writable() {
		return fn()
	}
	if err := p.setAccess(ctx, n, false); err != nil {
		return err
	}
	err := fn()
	if again := p.setAccess(context.WithoutCancel(ctx), n, true); err == nil && again != nil {
		err = qmp.Errorf("node '%s' stays writable: %v", n.Name(), again)
	}
	return err
}
