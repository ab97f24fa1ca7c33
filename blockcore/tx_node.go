package blockcore

import (
	"fmt"
	"slices"
	"syscall"

	"nbd-dataplane/internal/check"
)

// NodeOptions describe a new Node.
type NodeOptions struct {
	Name    string      // unique in the graph; "" has one made up
	Context *AioContext // nil = that of the children, or else the graph's main one
	Driver  Driver      // opened; the node owns it from now on
	// Children are what the driver is put on top of; it gets their edges by Parent.SetChild.
	Children []ChildOptions
	// ReadOnly keeps everybody from writing, whatever the driver can.
	ReadOnly bool
	// Implicit: the node is made for its parent, and removed with it.
	Implicit bool
}

// ChildOptions name a child of a new node.
type ChildOptions struct {
	Role Role
	Node *Node
}

// AddNode puts an opened driver into the graph. When the change fails the driver remains the caller's.
func (tx *Tx) AddNode(o NodeOptions) (*Node, error) {
	g := tx.graph
	if err := tx.place(&o); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if o.Name == "" {
		o.Name = fmt.Sprintf("#block%03d", g.unnamed)
		g.unnamed++
	}
	if _, taken := g.nodes[o.Name]; taken {
		return nil, fmt.Errorf("Duplicate nodes with node-name='%s'", o.Name)
	}
	n := newNode(g, o)
	if a, ok := o.Driver.(Adopter); ok {
		a.SetNode(n)
	}
	g.nodes[n.name] = n
	tx.fresh[n] = true
	tx.onUndo(func() { delete(g.nodes, n.name) })
	for _, child := range o.Children {
		if err := g.has(child.Node); err != nil {
			return nil, err
		}
		tx.attach(n, child.Role, child.Node)
	}
	if born := g.drainAll; born > 0 {
		n.quiesce += born
		tx.walk.touched = append(tx.walk.touched, n)
		tx.onUndo(func() { n.quiesce -= born })
	}
	return n, n.learn()
}

// place decides about the AioContext of a new node, and brings its children there.
func (tx *Tx) place(o *NodeOptions) error {
	g := tx.graph
	for _, child := range o.Children {
		if o.Context == nil {
			o.Context = child.Node.Context()
		}
	}
	if o.Context == nil {
		o.Context = g.main
	}
	if o.Context == nil {
		return fmt.Errorf("node %s: no AioContext was named and the graph has no main one", o.Name)
	}
	if f, ok := o.Driver.(Featurer); ok && f.Features().MainOnly && g.main != nil && o.Context != g.main {
		return mainOnly(o.Name, o.Context)
	}
	for _, child := range o.Children {
		if err := tx.bring(child.Node, o.Context); err != nil {
			return err
		}
	}
	return nil
}

// onUndo notes how to take back what was just done. fn is called with graph.mu held.
func (tx *Tx) onUndo(fn func()) {
	g := tx.graph
	tx.undo = append(tx.undo, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		fn()
	})
}

// RemoveNode takes n, which nobody uses, out of the graph. Once the change stands, n is flushed and closed; implicit children
// that nobody else uses go with it.
func (tx *Tx) RemoveNode(n *Node) error {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(n); err != nil {
		return err
	}
	if len(n.parents) > 0 {
		return fmt.Errorf("Node %s is in use", n.name)
	}
	tx.remove(n)
	return nil
}

// remove is RemoveNode once it is allowed. graph.mu is held.
func (tx *Tx) remove(n *Node) {
	gone := tx.takeOut(n)
	tx.finish = append(tx.finish, func() error { return tx.graph.shutAll(gone) })
}

// takeOut takes n out of the graph, and with it the implicit children that nobody else uses; it returns them all, parents first. graph.mu is held.
func (tx *Tx) takeOut(n *Node) (gone []*Node) {
	g := tx.graph
	delete(g.nodes, n.name)
	all := g.drainAll
	tx.onUndo(func() {
		g.nodes[n.name] = n
		for range all - g.drainAll { // ended meanwhile, and did not find n
			tx.walk.resumeNode(n)
		}
	})
	tx.walk.quiesceNode(n) // a driver is closed in a section of its own
	tx.onUndo(func() { tx.walk.resumeNode(n) })
	gone = append(gone, n)
	for _, e := range slices.Clone(n.children) {
		child := e.Node()
		tx.unlink(e) // the driver keeps the edge: it may have something to write when it is closed
		if child.implicit && len(child.parents) == 0 {
			gone = append(gone, tx.takeOut(child)...)
		}
	}
	return gone
}

// orphan takes the children from a node that is closed.
func (g *Graph) orphan(n *Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range n.children {
		setChild(n, e.role, nil)
	}
	n.children = nil
}

// NewRoot attaches an owner to n.
func (tx *Tx) NewRoot(n *Node, o RootOptions) (*Root, error) {
	if o.Writable && !n.Writable() {
		return nil, fmt.Errorf("Cannot export read-only node as writable: node %s", n.name)
	}
	g := tx.graph
	r := &Root{graph: g, name: o.Name, owner: o.Owner, movable: o.Movable, edge: newEdge(RoleRoot, string(RoleRoot), n)}
	r.edge.root = r
	perm := o.Permissions | PermRead
	if o.Writable {
		perm |= PermWrite
	}
	r.edge.perm.Store(uint32(perm))
	r.edge.shared.Store(uint32(PermAll &^ o.Unshared))
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(n); err != nil {
		return nil, err
	}
	r.ctx.Store(n.Context())
	g.roots[r] = struct{}{}
	tx.onUndo(func() { delete(g.roots, r) })
	tx.link(r.edge, n)
	return r, nil
}

// CloseRoot detaches an owner. Nothing is in flight and nothing follows.
func (tx *Tx) CloseRoot(r *Root) {
	g := tx.graph
	check.Invariant(r.inFlight.Load() == 0, "Root %q is closed with %d requests in flight", r.name, r.inFlight.Load())
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.gone {
		return
	}
	r.gone = true
	delete(g.roots, r)
	tx.onUndo(func() {
		r.gone = false
		g.roots[r] = struct{}{}
		tx.walk.touched = append(tx.walk.touched, r) // what it was not told while it was gone
	})
	tx.unlink(r.edge)
	tx.finish = append(tx.finish, func() error { r.throttle.Leave(); return nil })
}

// Resize changes the size of n, on its loop, at once: it cannot be undone and has to come last in its change. d covers n. Every owner whose node
// has another size afterwards is told, of whatever section it is: n may have its child resized, and somebody else uses that as well.
func (tx *Tx) Resize(d *Drained, n *Node, sizeBytes int64) error {
	g := tx.graph
	g.mu.Lock()
	err := tx.mayResize(d, n, sizeBytes)
	_, roots := g.component(n)
	g.mu.Unlock()
	if err != nil {
		return err
	}
	if n.Size() == sizeBytes {
		return nil
	}
	before := sizesOf(roots)
	err = g.do(n, func(t *Task) error {
		if n.can.flusher != nil {
			if err := n.can.flusher.Flush(t); err != nil {
				return &FlushFailure{n, err}
			}
		}
		err := n.can.resizer.Resize(t, sizeBytes)
		n.refitted()
		return err
	})
	if err != nil {
		tellSizes(roots, before) // a part of it may have been done
		return &NodeFailure{Doing: fmt.Sprintf("resize node %s to %d bytes", n.name, sizeBytes), Err: err}
	}
	tx.finish = append(tx.finish, func() error { tellSizes(roots, before); return nil })
	return nil
}

func sizesOf(roots []*Root) []int64 {
	sizes := make([]int64, len(roots))
	for i, r := range roots {
		sizes[i] = r.Node().Size()
	}
	return sizes
}

// tellSizes tells owners that the size has changed of what they use.
func tellSizes(roots []*Root, before []int64) {
	for i, r := range roots {
		w, watches := r.owner.(SizeWatcher)
		if size := r.Node().Size(); watches && size != before[i] {
			w.Resized(size)
		}
	}
}

func (tx *Tx) mayResize(d *Drained, n *Node, sizeBytes int64) error {
	if err := tx.graph.has(n); err != nil {
		return err
	}
	if n.can.resizer == nil {
		return fmt.Errorf("node %s cannot be resized: %w", n.name, syscall.ENOTSUP)
	}
	if !n.Writable() {
		return fmt.Errorf("Image is read-only: node %s: %w", n.name, syscall.EACCES)
	}
	if sizeBytes < 0 || sizeBytes%n.align() != 0 {
		return fmt.Errorf("node %s: a size of %d bytes is not a multiple of %d: %w", n.name, sizeBytes, n.align(), syscall.EINVAL)
	}
	tx.demand(d, n, nil)
	for _, e := range n.parents {
		if e.Shared()&PermResize == 0 {
			return conflict(n, PermResize, &Edge{name: string(RoleRoot), root: &Root{}}, e)
		}
	}
	return n.mayBecome(sizeBytes, nil)
}

// concerned returns the Roots that a change inside of n, which d covers, may concern.
func (tx *Tx) concerned(d *Drained, n *Node) ([]*Root, error) {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(n); err != nil {
		return nil, err
	}
	tx.demand(d, n, nil)
	_, roots := g.component(n)
	return roots, nil
}

// demand makes sure that a change happens where nothing is in flight. It is our own mistake if not. graph.mu is held.
func (tx *Tx) demand(d *Drained, n *Node, r *Root) {
	if n != nil && tx.fresh[n] {
		return
	}
	name := "a root"
	if n != nil {
		name = "node " + n.name
	}
	check.Invariant(d.covers(n, r), "an edge of %s is changed outside of a drained section", name)
	if n != nil {
		check.Invariant(n.InFlight() == 0, "an edge of node %s is changed with %d requests in flight", n.name, n.InFlight())
		return
	}
	check.Invariant(r.InFlight() == 0, "the edge of root %s is changed with %d requests in flight", r.name, r.InFlight())
}
