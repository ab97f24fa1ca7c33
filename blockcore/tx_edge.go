package blockcore

import (
	"fmt"
	"slices"
)

// Attach puts child under parent, which has no child of that role. Where they are on two loops the one moves that nobody owns, the child if it is
// both. d covers parent.
func (tx *Tx) Attach(d *Drained, parent *Node, role Role, child *Node) (*Edge, error) {
	if err := tx.join(parent, child); err != nil {
		return nil, err
	}
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(parent, child); err != nil {
		return nil, err
	}
	tx.demand(d, parent, nil)
	if reaches(child, parent) {
		return nil, cycle(child, role, parent)
	}
	for _, e := range parent.children {
		if e.role == role {
			return nil, fmt.Errorf("node %s has a child '%s' already: node %s", parent.name, role, e.Node().name)
		}
	}
	return tx.attach(parent, role, child), nil
}

func cycle(child *Node, role Role, parent *Node) error {
	return fmt.Errorf("Making '%s' a %s child of '%s' would create a cycle", child.name, role, parent.name)
}

// attach is Attach once it is allowed. graph.mu is held.
func (tx *Tx) attach(parent *Node, role Role, child *Node) *Edge {
	e := newEdge(role, string(role), child)
	e.parent = parent
	parent.children = append(parent.children, e)
	setChild(parent, role, e)
	tx.onUndo(func() {
		parent.children = without(parent.children, e)
		setChild(parent, role, nil)
	})
	tx.link(e, child)
	return e
}

func setChild(parent *Node, role Role, e *Edge) {
	if p, ok := parent.driver.(Parent); ok {
		p.SetChild(role, e)
	}
}

// Detach takes a child away from the node that uses it. d covers that node.
func (tx *Tx) Detach(d *Drained, e *Edge) {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	tx.demand(d, e.parent, nil)
	tx.detach(e)
}

func (tx *Tx) detach(e *Edge) {
	parent := e.parent
	at := slices.Index(parent.children, e)
	parent.children = without(parent.children, e)
	setChild(parent, e.role, nil)
	tx.onUndo(func() {
		parent.children = slices.Insert(slices.Clone(parent.children), at, e)
		setChild(parent, e.role, e)
	})
	tx.unlink(e)
}

// SetChild has e lead to another node. d covers who uses e.
func (tx *Tx) SetChild(d *Drained, e *Edge, to *Node) error {
	if err := tx.bring(to, e.Node().Context()); err != nil {
		return err
	}
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(to); err != nil {
		return err
	}
	return tx.setChild(d, e, to)
}

func (tx *Tx) setChild(d *Drained, e *Edge, to *Node) error {
	from := e.Node()
	at := slices.Index(from.parents, e)
	switch {
	case at < 0:
		return fmt.Errorf("the edge %s to node %s is gone", e.name, from.name)
	case from == to:
		return nil
	}
	tx.demand(d, e.parent, e.root)
	if e.parent != nil && reaches(to, e.parent) {
		return cycle(to, e.role, e.parent)
	}
	tx.point(e, to, len(to.parents))
	tx.onUndo(func() { tx.point(e, from, at) })
	return nil
}

// Replace has everybody who uses from use to, but for to itself and what is below it: a filter that is put above a node goes on using
// it. d covers from.
func (tx *Tx) Replace(d *Drained, from, to *Node) error {
	if err := tx.bring(to, from.Context()); err != nil {
		return err
	}
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(from, to); err != nil {
		return err
	}
	for _, e := range slices.Clone(from.parents) {
		if e.parent != nil && reaches(to, e.parent) {
			continue
		}
		if err := tx.setChild(d, e, to); err != nil {
			return err
		}
	}
	return nil
}

// point moves e to another child, as the at-th of its parents. Whoever uses e is quiesced as long as one of the two is, without a moment in between.
func (tx *Tx) point(e *Edge, to *Node, at int) {
	from := e.Node()
	from.parents = without(from.parents, e)
	to.parents = slices.Insert(slices.Clone(to.parents), at, e)
	e.child.Store(to)
	if to.quiesce > 0 {
		tx.walk.quiesceParent(e)
	} else {
		tx.walk.resumeParent(e)
	}
}

// link enters e with the child that it leads to.
func (tx *Tx) link(e *Edge, child *Node) {
	child.parents = append(child.parents, e)
	if child.quiesce > 0 {
		tx.walk.quiesceParent(e)
	}
	tx.onUndo(func() {
		child.parents = without(child.parents, e)
		tx.walk.resumeParent(e)
	})
}

// unlink takes e off the child that it leads to.
func (tx *Tx) unlink(e *Edge) {
	child := e.Node()
	at := slices.Index(child.parents, e)
	child.parents = without(child.parents, e)
	tx.walk.resumeParent(e)
	tx.onUndo(func() {
		child.parents = slices.Insert(slices.Clone(child.parents), at, e)
		if child.quiesce > 0 {
			tx.walk.quiesceParent(e)
		}
	})
}

// without returns the list less e, in a list of its own: others may be looking at the old one.
func without(list []*Edge, e *Edge) []*Edge {
	return slices.DeleteFunc(slices.Clone(list), func(other *Edge) bool { return other == e })
}

// reaches reports whether to is from or below it. graph.mu is held.
func reaches(from, to *Node) bool {
	if from == to {
		return true
	}
	for _, e := range from.children {
		if reaches(e.Node(), to) {
			return true
		}
	}
	return false
}
