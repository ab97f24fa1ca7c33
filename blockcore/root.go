package blockcore

import (
	"context"
	"fmt"
	"sync/atomic"

	"nbd-dataplane/internal/check"
)

// Root is the handle by which an owner outside the graph, such as an export, uses a node. Every request of the owner
// is admitted here: it is either counted in or held back, under one rule in one place.
//
// Analogous to QEMU's BlockBackend.
type Root struct {
	// Immutable.
	graph *Graph
	name  string
	edge  *Edge
	owner Owner

	// Changed only by a Tx.
	quiesce int  // sections that cover the Root, itself or through its node
	told    bool // that the loop was told to be still
	movable bool // to another AioContext although the owner does not follow
	gone    bool

	// Owned by the context.
	still    bool      // admission is closed
	held     WaitQueue // requests that arrived meanwhile
	resuming int       // requests that were held, or came behind such, are counted in and have not run yet
	tickets  ticketList
	orphans  orphanIndex // of them

	// Safe from anywhere.
	ctx      atomic.Pointer[AioContext]
	inFlight atomic.Int64 // requests admitted and not ended
	telling  atomic.Int32 // quiesce steps that the loop has not taken yet

	// Changed only by a Tx.
	throttle *ThrottleMember // nil = no limits
}

// Owner is who stands above a Root, as far as it takes part in drains. An owner whose requests all come through
// Begin needs none of it: they are held back there.
type Owner interface {
	// Quiesce stops the source of requests. It does not wait. On the loop, in no Task.
	Quiesce()
	// Busy reports that the owner has something under way besides requests admitted; when that ends it calls
	// Root.Settled. Safe from anywhere.
	Busy() bool
	// Resume lets the source go on. On the loop, in no Task.
	Resume()
}

// Mover is an Owner that can follow its node to another AioContext.
type Mover interface {
	// MayMove returns why not, or nil. Safe from anywhere.
	MayMove(to *AioContext) error
	// Detach takes everything off the old loop. The Root is drained. On that loop, in no Task.
	Detach(to *AioContext)
	// Attach takes it up on the new one. On the new loop, in no Task.
	Attach(ctx *AioContext)
}

// Sibling is an Owner of several Roots, whose nodes stay on one AioContext.
type Sibling interface {
	// Siblings returns them all. Safe from anywhere.
	Siblings() []*Root
}

// SizeWatcher is an Owner that wants to know when the size of its node has changed.
type SizeWatcher interface {
	// Resized is called in the drained section of the change. Not on a loop.
	Resized(sizeBytes int64)
}

// RootOptions describe a new Root.
type RootOptions struct {
	Name     string // of the owner, for messages
	Writable bool   // PermWrite is taken as well
	// Permissions are taken besides.
	Permissions Permissions
	// Unshared permissions are kept from everybody else.
	Unshared Permissions
	// Owner takes part in drains; may be nil.
	Owner Owner
	// Movable lets the node change its AioContext under an owner that is no Mover.
	Movable bool
}

// Name returns the name of the owner. Safe from anywhere.
func (r *Root) Name() string { return r.name }

// Context returns the AioContext that requests must be started on. It changes only while r is drained. Safe from
// anywhere.
func (r *Root) Context() *AioContext { return r.ctx.Load() }

// Edge returns what requests go through between Begin and End.
func (r *Root) Edge() *Edge { return r.edge }

// Node returns the node below. It changes only while r is drained. Safe from anywhere.
func (r *Root) Node() *Node { return r.edge.Node() }

// Still reports whether a drained section covers r: a request that begins now would be held back. On the loop.
func (r *Root) Still() bool { return r.still }

// Begin admits one request, which is in flight until End. While a drained section covers r the request is held
// back here; the held go first afterwards, in order. It returns false, and k is nothing, when r has moved to another
// AioContext meanwhile: the request is to be begun there, by a Task of that one.
func (r *Root) Begin(t *Task, k *Ticket) bool {
	if r.ctx.Load() != t.ctx {
		return false
	}
	k.root, k.task, k.since = r, t, t.Latest()
	t.ticket = k
	r.tickets.add(k)
	if k.Orphaned {
		k.adopt()
	}
	switch {
	case r.still:
		if !r.hold(t, k) {
			return false
		}
	case r.resuming > 0:
		r.inFlight.Add(1)
		r.resuming++
		t.Yield() // those that were held are ready, and so ahead
		r.resuming--
	default:
		r.inFlight.Add(1)
	}
	if r.orphans.count > 0 {
		r.awaitOrphans(t, k)
	}
	if k.Limited && r.throttle != nil && !k.dismissed {
		// It is in flight already, of the Root and of no node: a drain lifts the limits before it waits.
		r.throttle.Admit(t, k.Direction, k.Range.Length)
	}
	return true
}

// hold keeps a request back until it has been counted in. It returns false when it is sent away instead.
func (r *Root) hold(t *Task, k *Ticket) bool {
	k.held = true
	t.Wait(&r.held)
	if k.root == nil {
		return false
	}
	k.held = false
	r.resuming--
	return true
}

// forget ends a ticket.
func (r *Root) forget(t *Task, k *Ticket) {
	r.tickets.remove(k)
	k.mourn()
	k.leave(t)
}

// End ends a request after its result has been handed over.
func (r *Root) End(t *Task, k *Ticket) {
	r.forget(t, k)
	left := r.inFlight.Add(-1)
	if check.Enabled {
		check.Invariant(left >= 0, "Root %q: more requests ended than begun", r.name)
		check.Invariant(t.node == nil, "Root %q: a request ended inside of a driver", r.name)
	}
	if left == 0 && r.still {
		r.graph.bell.ring()
	}
}

// Dismiss has the requests of a client go on that wait for the limits of r, or for orphans: it does not want them executed any more. They are in flight
// as before, and Begin returns true. On the loop.
func (r *Root) Dismiss(client fmt.Stringer) {
	for k := r.tickets.first; k != nil; k = k.next {
		if k.Client == client {
			k.dismissed = true
			k.reconsider()
		}
	}
	if r.still {
		return // the limits are off, nobody waits for them, and they may be changed
	}
	r.throttle.dismiss(func(t *Task) bool { return t.ticket != nil && t.ticket.Client == client })
}

// Settled has those who wait for r look again: its owner is not Busy any more. Safe from anywhere.
func (r *Root) Settled() { r.graph.bell.ring() }

// Busy reports whether requests are in flight, or the owner has something else under way. Safe from anywhere.
func (r *Root) Busy() bool {
	return r.inFlight.Load() != 0 || r.owner != nil && r.owner.Busy()
}

// InFlight returns the number of requests admitted and not ended. Safe from anywhere.
func (r *Root) InFlight() int64 { return r.inFlight.Load() }

// hush is the part of a quiesce step that concerns r. On the loop.
func (r *Root) hush() {
	r.still = true
	if r.owner != nil {
		r.owner.Quiesce()
	}
}

// stir undoes hush: the requests that were held are counted in and woken, in order. A section that begins before they
// run waits for them, so none is held twice and put behind those that came later. On the loop.
func (r *Root) stir() {
	r.still = false
	for !r.held.Empty() {
		r.inFlight.Add(1)
		r.resuming++
		r.held.WakeOne()
	}
	if r.owner != nil {
		r.owner.Resume()
	}
}

// sendAway forgets the requests that are held, and returns those who are to be told once r is on its new loop. They touch nothing
// of r on this one any more.
func (r *Root) sendAway() WaitQueue {
	for k := r.tickets.first; k != nil; k = r.tickets.first {
		r.forget(k.task, k)
	}
	away := r.held
	r.held = WaitQueue{}
	return away
}

// Drain quiesces r alone and waits until nothing of it is in flight; see Graph.Drain.
func (r *Root) Drain(ctx context.Context) (*Drained, error) {
	return r.graph.Drain(ctx, DrainOptions{Why: "root " + r.name, Roots: []*Root{r}})
}

// NewRoot attaches an owner to n, in an Update of its own.
func (g *Graph) NewRoot(n *Node, o RootOptions) (r *Root, err error) {
	err = g.Update(context.Background(), "attach "+o.Name, func(tx *Tx) error {
		r, err = tx.NewRoot(n, o)
		return err
	})
	return r, err
}

// Close detaches the owner. Nothing is in flight and nothing follows. Not on a loop.
func (r *Root) Close() {
	_ = r.graph.Update(context.Background(), "detach "+r.name, func(tx *Tx) error {
		tx.CloseRoot(r)
		return nil
	})
}
