package blockcore

import (
	"fmt"
	"syscall"
)

// A request that is in flight ends when the storage says so. Storage that is far away may never say anything, and then nothing can go that waits for it: an
// export, a client that was thrown out, the process. So a request can be declared unwanted when nobody is left who would get its result,
// and a driver that can do without the storage's word (Canceller) ends it early, with ErrCancelled. It is counted like any other
// until it has ended, and what it was about may have been done, in part or not at all, as with any error.
//
//	Root.Cancel       the requests of a client are unwanted
//	  Canceller       looks at what waits in it
//	    Node.Unwanted whose is it?  ends it, or leaves it
//
// INVARIANT: a request that somebody wants is not ended, and does not depend on one that is: where requests may wait for each other, above the
// driver, all of them have to be unwanted.

// ErrCancelled is what a request ends with that nobody wanted any more.
var ErrCancelled = fmt.Errorf("ended early, since nobody waits for it any more: %w", syscall.ECANCELED)

// Canceller ends requests before the storage has answered. Default: they end when it does.
type Canceller interface {
	// Cancel ends what waits in the driver for Tasks of which Node.Unwanted is true, and is asked again when there are more. The driver asks
	// for itself before a Task begins to wait. It neither waits nor suspends. On the loop, in no Task.
	Cancel()
}

// Cancel has the requests of a client end early, those in flight and what they go on to do, where nobody else depends on them. On the loop.
func (r *Root) Cancel(client fmt.Stringer) {
	for k := r.tickets.first; k != nil; k = k.next {
		if k.Client == client && !k.unwanted {
			k.unwanted = true
			k.task.ctx.unwanted++
			k.reconsider()
		}
	}
	if ctx := r.ctx.Load(); ctx.unwanted > 0 {
		for _, c := range r.graph.cancellersBelow(r.Node(), ctx) {
			c.Cancel()
		}
	}
}

// forgotten ends what Cancel has begun. t executes k.
func (k *Ticket) forgotten(t *Task) {
	if k.unwanted {
		k.unwanted = false
		t.ctx.unwanted--
	}
}

// cancellersBelow are those on a loop that requests at top may get to.
func (g *Graph) cancellersBelow(top *Node, on *AioContext) (all []Canceller) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen := map[*Node]bool{}
	var down func(n *Node)
	down = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if n.can.canceller != nil && n.Context() == on {
			all = append(all, n.can.canceller)
		}
		for _, e := range n.children {
			down(e.Node())
		}
	}
	down(top)
	return all
}

// CancelAll has everything end early from now on that can, whoever wants it, also what closes nodes: the process is about to end without it. It reports
// whether there is a driver that can. Not on a loop.
func (g *Graph) CancelAll() (can bool) {
	g.hurried.Store(true)
	for _, n := range append(g.Nodes(), g.Leaving()...) {
		if n.can.canceller != nil {
			can = true
			n.Context().Post(n.can.canceller.Cancel)
		}
	}
	return can
}

// Unwanted reports whether what t does at n, the node of a Canceller, may be ended early. On the loop.
func (n *Node) Unwanted(t *Task) bool {
	return t.ctx.unwanted > 0 && n.judge(t) || n.graph.hurried.Load()
}

// judge finds out what t works for. It may be a Task that a driver above has started for requests, so one without a request is unwanted when all requests
// above are.
func (n *Node) judge(t *Task) bool {
	k := t.ticket
	if k != nil && !k.unwanted {
		return false
	}
	n.graph.mu.Lock()
	defer n.graph.mu.Unlock()
	if k != nil && k.root.Node().leadsAlone(n) {
		return true
	}
	roots, nodes := n.users()
	return n.isDeserted(t.ctx, roots, nodes)
}

// leadsAlone reports whether requests get from n down to below by themselves: no driver on the way has one do what others need. graph.mu
// is held.
func (n *Node) leadsAlone(below *Node) bool {
	if n == below {
		return true
	}
	if !n.Features().Independent {
		return false
	}
	for _, e := range n.children {
		if reaches(e.Node(), below) && !e.Node().leadsAlone(below) {
			return false
		}
	}
	return true
}

// users are the Roots above n, and n and the nodes above it. graph.mu is held.
func (n *Node) users() ([]*Root, []*Node) {
	nodes, roots := (&Drained{graph: n.graph, nodes: []*Node{n}}).coverage()
	return roots, nodes
}

// isDeserted reports whether there are requests above n, and nobody wants one. Those that a section holds back have come to no driver: what is under way
// then is the control plane's. Nor have those that wait for orphans. graph.mu is held. On the loop.
func (n *Node) isDeserted(on *AioContext, roots []*Root, nodes []*Node) bool {
	for _, above := range nodes {
		for k := above.errands.first; k != nil; k = k.next {
			if k.Op == opFlush {
				return false // somebody is about to change the graph
			}
		}
	}
	some := false
	for _, r := range roots {
		if r.Context() != on {
			return false
		}
		if r.owner != nil && r.owner.Busy() {
			return false
		}
		for k := r.tickets.first; k != nil; k = k.next {
			if k.held || k.behind != nil {
				continue
			}
			if !k.unwanted {
				return false
			}
			some = true
		}
	}
	return some
}
