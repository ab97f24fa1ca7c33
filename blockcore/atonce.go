package blockcore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// atOnce is a change that a loop makes on behalf of the control plane, which waits meanwhile and holds the graph.
type atOnce struct {
	// Immutable.
	on      *AioContext
	section *Drained
	flush   []*Node
	fn      func(*Tx, *Drained) error
	begun   time.Time
	done    chan struct{} // closed when the loop has nothing more to do with it

	// Owned by the context. When done is closed they are the control plane's.
	tx   *Tx // nil = something is in flight, and nothing was changed
	err  error
	over func() // tells that the section is over; nil = it goes on

	// Safe from anywhere.
	state atomic.Int32
}

// The states of an atOnce. The loop takes one step after the other; the control plane gives up by one, in the first two.
const (
	atOnceAsked int32 = iota
	atOnceFlushes
	atOnceChanges // does not wait for anything any more
	atOnceGivenUp
)

// changeAtOnce begins a section and has its loop make the change. It is not done, and the section has begun, where there are several
// loops, or something is in flight.
func (g *Graph) changeAtOnce(ctx context.Context, d *Drained, flush []*Node, fn func(*Tx, *Drained) error) (done bool, err error) {
	if err := g.lock(ctx); err != nil {
		return true, d.begins(err)
	}
	defer g.unlock()
	d.wakes()
	if err := g.quiesce(d, false); err != nil {
		return true, d.begins(err)
	}
	a := &atOnce{on: d.loop(flush), section: d, flush: flush, fn: fn, begun: time.Now(), done: make(chan struct{})}
	if a.on == nil || !a.on.Post(func() { a.on.Spawn(BodyFunc(a.run)) }) {
		return false, nil
	}
	done, err = a.wait(ctx)
	d.wakes()
	if err != nil || !done {
		return done, err
	}
	return true, a.conclude()
}

// loop returns the one on which all is that d covers, and nodes; nil = there are several.
func (d *Drained) loop(nodes []*Node) *AioContext {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	if d.graph.has(nodes...) != nil || len(d.nodes) == 0 {
		return nil
	}
	on := d.nodes[0].Context()
	covered, roots := d.coverage()
	for _, n := range append(covered, nodes...) {
		if n.Context() != on {
			return nil
		}
	}
	for _, r := range roots {
		if r.Context() != on {
			return nil
		}
	}
	return on
}

// run is the part of the loop.
//
// INVARIANT: who covers what cannot change meanwhile, nor where nodes are: the control plane is held, and waits.
func (a *atOnce) run(t *Task) {
	defer close(a.done)
	if a.section.busy() || !a.state.CompareAndSwap(atOnceAsked, atOnceFlushes) {
		return
	}
	a.section.settle(a.begun)
	err := a.flushAll(t)
	if !a.state.CompareAndSwap(atOnceFlushes, atOnceChanges) {
		return
	}
	a.tx = a.section.graph.newTx()
	a.tx.byLoop = true
	if err == nil {
		err = a.tx.apply(func(tx *Tx) error { return a.fn(tx, a.section) })
	}
	if a.err = err; err == nil && len(a.tx.finish) == 0 {
		a.over = a.section.goOn()
	}
}

func (a *atOnce) flushAll(t *Task) error {
	for _, n := range a.flush {
		if n.can.flusher == nil {
			continue
		}
		if err := n.flush(t); err != nil {
			return fmt.Errorf("flush node %s: %w", n.name, err)
		}
	}
	return nil
}

// wait is that of the control plane. Sections of others that end meanwhile are resumed. It is not done when the loop has found something in flight
// or ctx has ended before it looked; then the wait of the drain goes on, or names whom it waits for.
func (a *atOnce) wait(ctx context.Context) (done bool, err error) {
	g := a.section.graph
	patience := time.NewTimer(DrainMaxDefault)
	defer patience.Stop()
	ended := ctx.Done()
	for {
		rung := g.bell.next()
		g.resumeEnded()
		select {
		case <-a.done:
			return a.tx != nil, nil
		case <-rung:
		case <-ended:
			if a.state.CompareAndSwap(atOnceAsked, atOnceGivenUp) {
				return false, nil
			}
			ended = nil
		case <-patience.C:
			if a.state.CompareAndSwap(atOnceFlushes, atOnceGivenUp) {
				return true, a.noAnswer()
			}
			patience.Reset(DrainMaxDefault)
		}
	}
}

// noAnswer gives up a flush that does not end.
func (a *atOnce) noAnswer() error {
	d := a.section
	tx := d.graph.newTx()
	return tx.conclude(d.why, d, fmt.Errorf("flush: %w after %v", errNoAnswer, DrainMaxDefault))
}

// conclude is the rest of the change, which the control plane does.
func (a *atOnce) conclude() error {
	if a.over != nil {
		defer a.over()
	}
	return a.tx.conclude(a.section.why, a.section, a.err)
}
