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
	name string
	ctx  *AioContext
	edge *Edge

	// Owned by the context.
	quiesced int               // drained sections that cover this Root
	held     WaitQueue         // requests that arrived meanwhile
	resuming int               // requests that were held, are counted in and have not run yet
	waiting  []chan<- struct{} // closed once nothing is in flight

	// Safe from anywhere.
	inFlight atomic.Int64 // requests admitted and not ended
}

// RootOptions describe a new Root.
type RootOptions struct {
	Name     string // of the owner, for messages
	Writable bool
}

// NewRoot attaches an owner to n.
func (g *Graph) NewRoot(n *Node, o RootOptions) (*Root, error) {
	if o.Writable && !n.Writable() {
		return nil, fmt.Errorf("Cannot export read-only node as writable: node %s", n.name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n.users++
	return &Root{name: o.Name, ctx: n.ctx, edge: &Edge{child: n, writable: o.Writable}}, nil
}

// Close detaches the owner. Nothing is in flight and nothing follows.
func (r *Root) Close() {
	check.Invariant(r.inFlight.Load() == 0, "Root %q is closed with %d requests in flight", r.name, r.inFlight.Load())
	n := r.edge.child
	n.graph.mu.Lock()
	defer n.graph.mu.Unlock()
	n.users--
}

// Context returns the AioContext that requests must be started on. Safe from anywhere.
func (r *Root) Context() *AioContext { return r.ctx }

// Edge returns what requests go through between Begin and End.
func (r *Root) Edge() *Edge { return r.edge }

// Node returns the node below. Safe from anywhere.
func (r *Root) Node() *Node { return r.edge.child }

// Begin admits one request, which is in flight until End. While a drained section covers r the request is held
// back here; the held go first afterwards, in order.
func (r *Root) Begin(t *Task) {
	for r.resuming > 0 {
		t.Yield() // they are ready, and so ahead
	}
	if r.quiesced > 0 {
		t.Wait(&r.held)
		r.resuming--
		return
	}
	r.inFlight.Add(1)
}

// resume counts in and wakes the requests that were held, in order. A section that begins before they
// run waits for them, so none is held twice and put behind those that came later.
func (r *Root) resume() {
	for !r.held.Empty() {
		r.inFlight.Add(1)
		r.resuming++
		r.held.WakeOne()
	}
}

// End ends a request after its result has been handed over.
func (r *Root) End() {
	left := r.inFlight.Add(-1)
	if check.Enabled {
		check.Invariant(left >= 0, "Root %q: more requests ended than begun", r.name)
	}
	if left == 0 && len(r.waiting) > 0 {
		r.settled()
	}
}

// settled tells those who wait.
func (r *Root) settled() {
	for _, idle := range r.waiting {
		close(idle)
	}
	r.waiting = nil
}

// Busy reports whether requests are in flight. Safe from anywhere.
func (r *Root) Busy() bool { return r.inFlight.Load() != 0 }

// InFlight returns the number of requests admitted and not ended. Safe from anywhere.
func (r *Root) InFlight() int64 { return r.inFlight.Load() }

// Drained is a section of time in which a Root has nothing in flight. It is ended by End, once.
//
// Analogous to the time between QEMU's bdrv_drained_begin and bdrv_drained_end.
type Drained struct {
	root  *Root
	ended atomic.Bool
}

// Drain quiesces r and waits until nothing is in flight. When ctx ends first, r is resumed and
// the error says what the wait was for. Sections nest and overlap. Not on a loop.
func (r *Root) Drain(ctx context.Context) (*Drained, error) {
	d := &Drained{root: r}
	idle := make(chan struct{})
	ok := r.ctx.Post(func() {
		r.quiesced++
		r.waiting = append(r.waiting, idle)
		if !r.Busy() {
			r.settled()
		}
	})
	if !ok {
		return nil, ErrContextClosed
	}
	select {
	case <-idle:
		return d, nil
	case <-ctx.Done():
		err := fmt.Errorf("drain of %q: %d requests still in flight on node %s: %w", r.name, r.InFlight(), r.Node().Name(), ctx.Err())
		d.End()
		return nil, err
	}
}

// End resumes the Root; held-back requests go first, in order. It does not wait. Ending twice is harmless.
func (d *Drained) End() {
	if d.ended.Swap(true) {
		return
	}
	r := d.root
	r.ctx.Post(func() {
		r.quiesced--
		if r.quiesced == 0 {
			r.resume()
		}
	})
}
