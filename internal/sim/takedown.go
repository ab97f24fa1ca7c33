package sim

import (
	"errors"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// takeDown closes everything and looks at what is left.
func (c *controller) takeDown() {
	w := c.w
	for len(w.owners) > 0 && !w.Failed() {
		c.closeOwner(w.owners[0])
	}
	c.checkPermissions()
	for _, d := range w.layers {
		if !slices.ContainsFunc(w.layers, func(other driver) bool { return other.common().uses(d) }) && isData(d) {
			c.lastLook(d)
		}
	}
	for _, d := range w.layers {
		if isImage(d) && !w.Failed() {
			c.cutPower(d)
		}
		if b, ok := d.(*disk); ok && b.volume != nil {
			b.crash()
			for cell, tag := range b.now {
				if err := b.volume.checkCrash(cell, tag); err != nil {
					w.Fail("after the last crash of %s: %v", b.name, err)
					return
				}
			}
		}
	}
	c.checkIdle()
	for _, d := range w.layers {
		c.checkBitmaps(d.common())
	}
	for len(w.layers) > 0 && !w.Failed() {
		c.removeTop()
	}
	for _, g := range w.groups {
		if left := g.Members(); len(left) > 0 {
			w.Fail("group %s has members in the end: %v", g.Name(), left)
		}
	}
	if n := len(w.jobs.All()); n > 0 {
		w.Fail("%d jobs are left", n)
	}
	if n := len(w.graph.Sections()) + len(w.graph.Nodes()) + len(w.graph.Roots()); n > 0 {
		w.Fail("%d sections, nodes and Roots are left", n)
	}
}

// lastLook reads all that a node shows, and flushes it.
func (c *controller) lastLook(d driver) {
	w := c.w
	o := &owner{w: w, name: w.newName("last"), rng: c.rng, closing: true}
	_ = c.updateWhole("open "+o.name, func(tx *blockcore.Tx) (err error) {
		o.root, err = tx.NewRoot(d.common().node, blockcore.RootOptions{Name: o.name, Owner: o, Writable: true})
		return err
	})
	w.owners = append(w.owners, o)
	one := &line{client: &client{owner: o, name: o.name}, rng: c.rng}
	cells := int(o.root.Node().Size() / simkit.CellBytes)
	err := o.root.Context().Do(func(t *blockcore.Task) error {
		for _, q := range []*request{{line: one, op: "read", n: cells}, {line: one, op: "flush"}} {
			for range 1000 {
				if q.performed(t) == nil {
					break
				}
			}
		}
		return nil
	})
	c.park(0)
	if err != nil {
		w.Fail("the last look at %s: %v", d.common().name, err)
	}
	c.closeOwner(o)
}

var errMoved = errors.New("the root has moved")

// performed is perform, with the result.
func (q *request) performed(t *blockcore.Task) error {
	if !q.perform(t) {
		return errMoved
	}
	return q.err
}

// removeTop removes a node that nobody uses.
func (c *controller) removeTop() {
	w := c.w
	for _, d := range w.layers {
		l := d.common()
		if slices.ContainsFunc(w.layers, func(other driver) bool { return other.common().uses(d) }) {
			continue
		}
		i, isImage := d.(*image)
		var f *file
		if isImage {
			f = i.file.Node().Driver().(*file)
		}
		err := c.updateWhole("remove "+l.name, func(tx *blockcore.Tx) error { return c.removeNode(tx, l) })
		if err != nil && !errors.Is(err, errInjected) {
			w.Fail("node %s cannot be removed: %v", l.name, err)
		}
		if !l.closed {
			w.Fail("node %s is removed and not closed", l.name)
		}
		w.delist(d)
		if isImage && !w.Failed() {
			c.checkClosed(i, f, err == nil && !i.lost)
		}
		return
	}
	w.Fail("every node is used by another one")
}

// checkIdle looks for counts that are not zero when nobody does anything.
func (c *controller) checkIdle() {
	for _, d := range c.w.layers {
		l := d.common()
		if q, n := l.node.Quiesced(), l.node.InFlight(); q != 0 || l.still {
			c.w.Fail("node %s in the end: %d sections, quiesced %t, %d in flight", l.name, q, l.still, n)
		}
	}
}

// checkPermissions compares what edges have with what the parents ask for.
func (c *controller) checkPermissions() {
	w := c.w
	for _, n := range w.graph.Nodes() {
		perm, shared := blockcore.Permissions(0), blockcore.PermAll
		parents := n.Parents()
		for _, e := range parents {
			perm |= e.Permissions()
			shared &= e.Shared()
			for _, other := range parents {
				if clash := e.Permissions() &^ other.Shared(); other != e && clash != 0 {
					w.Fail("node %s: two parents exclude each other: %v", n.Name(), clash)
				}
			}
		}
		for _, e := range n.Children() {
			perm, shared := wishes(n.Driver(), e.Role(), perm, shared)
			if e.Permissions() != perm || e.Shared() != shared {
				w.Fail("node %s takes %v of its child and shares %v; its parents ask for %v and share %v", n.Name(), e.Permissions(), e.Shared(), perm, shared)
			}
		}
	}
}

// wishes is what a driver asks for of a child, given what its parents ask for.
func wishes(d blockcore.Driver, role blockcore.Role, perm, shared blockcore.Permissions) (blockcore.Permissions, blockcore.Permissions) {
	switch d := d.(type) {
	case *cache:
		return perm | blockcore.PermWrite, shared
	case *real:
		return d.ChildPermissions(role, perm, shared)
	case *image:
		return d.ChildPermissions(role, perm, shared)
	}
	return perm, shared
}
