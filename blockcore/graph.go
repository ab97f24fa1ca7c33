package blockcore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Graph is the set of nodes of the process and the edges between them and their owners.
//
// The control plane is whoever holds the graph's control: one at a time. It changes the graph, and begins and ends drained
// sections; the wait for what is in flight happens without it.
//
// Analogous to the graph that QEMU keeps in global lists of BlockDriverStates.
type Graph struct {
	// Immutable.
	onEvent func(Event)
	onWake  func(why string)
	control chan struct{} // holds one token while somebody is the control plane

	// Guarded by mu.
	mu       sync.Mutex
	nodes    map[string]*Node
	roots    map[*Root]struct{}
	sections map[*Drained]struct{}  // all that were asked for; some of them may be over
	ending   []*Drained             // sections that ended, for the control plane to resume
	drainAll int                    // sections that cover everything
	main     *AioContext            // where drivers run that cannot leave it
	unnamed  uint64                 // nodes that got their name from us
	leaving  map[*Node]*atomic.Bool // removed; false = closed, or nobody will close them any more
	lent     *AioContext            // the loop that is the control plane just now: it takes its own steps itself; nil = no loop is
	own      []*step                // what it has been told

	// Safe from anywhere.
	bell     bell
	toResume bell        // rung when a section has ended that the control plane has to resume
	hurried  atomic.Bool // CancelAll was called
}

// NewGraph returns an empty graph.
func NewGraph() *Graph { return NewGraphWith(GraphOptions{}) }

// GraphOptions configure a Graph.
type GraphOptions struct {
	// Main is the AioContext for drivers that run on no other; nil = there is none, and they run anywhere.
	Main *AioContext
	// OnEvent receives what happens in the graph; it must not block. nil = nobody listens.
	OnEvent func(Event)
	// OnWake is called by whoever makes a Change when it has waited and is about to go on: a simulation decides who is next. why is that of the
	// section. nil = nobody is asked.
	OnWake func(why string)
}

// NewGraphWith returns an empty graph.
func NewGraphWith(o GraphOptions) *Graph {
	return &Graph{
		onEvent: o.OnEvent, onWake: o.OnWake, main: o.Main, control: make(chan struct{}, 1),
		nodes: map[string]*Node{}, roots: map[*Root]struct{}{}, sections: map[*Drained]struct{}{}, leaving: map[*Node]*atomic.Bool{},
	}
}

// Main returns the AioContext for what has no other, or nil. Safe from anywhere.
func (g *Graph) Main() *AioContext {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.main
}

// lock makes the caller the control plane.
func (g *Graph) lock(ctx context.Context) error {
	select {
	case g.control <- struct{}{}:
		return nil
	default:
	}
	select {
	case g.control <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change of the graph: %w", ctx.Err())
	}
}

func (g *Graph) tryLock() bool {
	select {
	case g.control <- struct{}{}:
		return true
	default:
		return false
	}
}

// unlock resumes the sections that have ended meanwhile, on behalf of those who did not wait for us.
func (g *Graph) unlock() {
	for {
		g.resumeEnded()
		<-g.control
		g.mu.Lock()
		more := len(g.ending) > 0
		g.mu.Unlock()
		if !more || !g.tryLock() {
			return
		}
	}
}

func (g *Graph) resumeEnded() {
	for _, r := range g.resumeAll() {
		r.taken()
	}
}

func (g *Graph) resumeAll() []*resumption {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*resumption
	for _, d := range g.ending {
		all = append(all, g.resume(d))
	}
	g.ending = nil
	return all
}

// AddNode puts an opened driver into the graph, in an Update of its own. On error the driver remains the caller's.
func (g *Graph) AddNode(o NodeOptions) (n *Node, err error) {
	err = g.Update(context.Background(), "add node "+o.Name, func(tx *Tx) error {
		n, err = tx.AddNode(o)
		return err
	})
	return n, err
}

// RemoveNode flushes and closes n, which nobody may use any more, in an Update of its own. Not on a loop. The node is gone
// from the graph even when flushing or closing fails; the error says what.
func (g *Graph) RemoveNode(n *Node) error {
	return g.Update(context.Background(), "remove node "+n.name, func(tx *Tx) error { return tx.RemoveNode(n) })
}

// RemoveNodes removes all nodes that no owner uses, from the top down. Not on a loop.
func (g *Graph) RemoveNodes() error {
	var errs []error
	for again := true; again; {
		again = false
		for _, n := range g.Nodes() {
			if len(n.Parents()) == 0 && g.Node(n.name) == n { // it may have gone with its parent
				errs = append(errs, g.RemoveNode(n))
				again = again || g.Node(n.name) != n // or nobody gets on
			}
		}
	}
	return errors.Join(errs...)
}

// Node returns the node of that name, or nil. Safe from anywhere.
func (g *Graph) Node(name string) *Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.nodes[name]
}

// has says which of some nodes is not in the graph any more. graph.mu is held.
func (g *Graph) has(nodes ...*Node) error {
	for _, n := range nodes {
		if g.nodes[n.name] != n {
			return fmt.Errorf("Failed to find node with node-name='%s'", n.name)
		}
	}
	return nil
}

// Nodes returns all nodes, by name. Safe from anywhere.
func (g *Graph) Nodes() []*Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sorted()
}

// sorted is Nodes with graph.mu held.
func (g *Graph) sorted() []*Node {
	all := make([]*Node, 0, len(g.nodes))
	for _, n := range g.nodes {
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b *Node) int { return cmp.Compare(a.name, b.name) })
	return all
}

// Roots returns all owners' handles, in no order. Safe from anywhere.
func (g *Graph) Roots() []*Root {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*Root, 0, len(g.roots))
	for r := range g.roots {
		all = append(all, r)
	}
	return all
}

// Sections returns the drained sections that have begun and not ended, the oldest first. Safe from anywhere.
func (g *Graph) Sections() []*Drained {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*Drained, 0, len(g.sections))
	for d := range g.sections {
		if d.began && !d.ended {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b *Drained) int { return a.begun.Compare(b.begun) })
	return all
}

// Parents returns the edges that lead to n. Safe from anywhere.
func (n *Node) Parents() []*Edge {
	n.graph.mu.Lock()
	defer n.graph.mu.Unlock()
	return slices.Clone(n.parents)
}

// Children returns the edges that lead from n. Safe from anywhere.
func (n *Node) Children() []*Edge {
	n.graph.mu.Lock()
	defer n.graph.mu.Unlock()
	return slices.Clone(n.children)
}

// Quiesced returns how many drained sections cover n, counted as QEMU counts them: one for each section of its own and one for each
// child that is covered. Safe from anywhere.
func (n *Node) Quiesced() int {
	n.graph.mu.Lock()
	defer n.graph.mu.Unlock()
	return n.quiesce
}

// Quiesced returns how many drained sections cover r. Safe from anywhere.
func (r *Root) Quiesced() int {
	r.graph.mu.Lock()
	defer r.graph.mu.Unlock()
	return r.quiesce
}

// User returns who uses the child: a node, or else an owner's Root. Safe from anywhere.
func (e *Edge) User() (*Node, *Root) { return e.parent, e.root }

// Component returns all nodes that n shares requests with, directly or not: those that have to be on one AioContext. Safe
// from anywhere.
func (g *Graph) Component(n *Node) []*Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	nodes, _ := g.component(n)
	return nodes
}

// component lists the nodes from the parents to the children, and the Roots above them. graph.mu is held.
func (g *Graph) component(from *Node) ([]*Node, []*Root) {
	in := map[*Node]bool{}
	var roots []*Root
	var visit func(n *Node)
	visit = func(n *Node) {
		if in[n] {
			return
		}
		in[n] = true
		for _, e := range n.parents {
			if e.root == nil {
				visit(e.parent)
				continue
			}
			roots = append(roots, e.root)
			if s, ok := e.root.owner.(Sibling); ok {
				for _, r := range s.Siblings() {
					visit(r.Node())
				}
			}
		}
		for _, e := range n.children {
			visit(e.Node())
		}
	}
	visit(from)
	var nodes []*Node
	for _, n := range g.parentsFirst() {
		if in[n] {
			nodes = append(nodes, n)
		}
	}
	return nodes, roots
}
