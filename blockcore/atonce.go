package blockcore

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// atOnce is a section with a change that a loop makes on behalf of the control plane, which waits meanwhile and holds the graph. From the first
// request that is held back to the last that goes on nobody else has to wake up.
type atOnce struct {
	// Immutable.
	on      *AioContext
	section *Drained
	flush   []*Node
	fn      func(*Tx, *Drained) error
	done    chan struct{} // closed when the loop has nothing more to do with it

	// Owned by the context. When done is closed they are the control plane's.
	refused error // why the section has not begun
	tx      *Tx   // nil = something is in flight, and nothing was changed
	err     error
	over    func() // tells that the section is over; nil = it goes on

	// Safe from anywhere.
	state atomic.Int32
}

// The states of an atOnce: asked, and then it changes, with a flush of one node after the other before that. The control plane gives up while
// it is asked or flushes.
//
// INVARIANT: a loop is lent the control plane only while it changes, when nobody can give up. It flushes only while the flush counts in its
// node, which so stays where it is when the change is given up.
const (
	atOnceAsked int32 = iota
	atOnceFlushes
	atOnceChanges // does not wait for anything now
	atOnceGivenUp
)

// atOnceSoon is when to try again to give up what does not wait for anything just now: there may be another node to flush.
const atOnceSoon = 100 * time.Millisecond

// changeAtOnce has a loop begin a section and make the change. It is not done, and the section has begun, where there are several
// loops, something is in flight, or the loop does not answer.
func (g *Graph) changeAtOnce(ctx context.Context, d *Drained, flush []*Node, fn func(*Tx, *Drained) error) (done bool, err error) {
	if err := g.lock(ctx); err != nil {
		return true, d.begins(err)
	}
	defer g.unlock()
	d.wakes()
	a := &atOnce{on: d.asks(flush), section: d, flush: flush, fn: fn, done: make(chan struct{})}
	if a.on == nil || !a.on.Post(a.begin) {
		err := d.begins(g.quiesce(d, false))
		return err != nil, err
	}
	done, err = a.wait(ctx)
	d.wakes()
	if err != nil || !done {
		return done || err != nil, err
	}
	return true, a.conclude()
}

// asks returns the loop that is to begin d: the one on which all is that d covers, and nodes; nil = there are several.
func (d *Drained) asks(nodes []*Node) *AioContext {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	on := d.loop(nodes)
	d.asked = on != nil
	return on
}

// loop returns the one on which all is that d covers, and nodes; nil = there are several. graph.mu is held.
func (d *Drained) loop(nodes []*Node) *AioContext {
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

// begin is the part of the loop until nothing is in flight, and all of it if there is nothing to flush. On the loop, in no Task.
//
// INVARIANT: who covers what cannot change meanwhile, nor where nodes are: the control plane is held, and waits.
func (a *atOnce) begin() {
	if !a.state.CompareAndSwap(atOnceAsked, atOnceChanges) {
		return // nobody waits
	}
	g := a.section.graph
	g.lend(a.on)
	a.refused = g.quiesce(a.section, false)
	g.takeOwn()
	settles := time.Now()
	switch {
	case a.refused != nil || a.section.busy():
		g.takeBack()
		close(a.done)
	case slices.ContainsFunc(a.flush, (*Node).keeps):
		a.section.settle(settles)
		g.takeBack()
		a.on.Spawn(BodyFunc(a.flushAll))
	default:
		a.section.settle(settles)
		a.change(nil)
	}
}

// flushAll is followed by the change, in no Task, unless that was given up: then somebody else may be the control plane, and nodes may be gone.
func (a *atOnce) flushAll(t *Task) {
	err := flushEach(a.flush, func(n *Node) error { return a.flushNode(t, n) })
	if a.state.Load() == atOnceGivenUp {
		return
	}
	change := func() {
		a.section.graph.lend(a.on)
		a.change(err)
	}
	if !a.on.Post(change) {
		change() // the loop closes, and its last Tasks run
	}
}

// flushNode fails, too, when the change was given up meanwhile.
func (a *atOnce) flushNode(t *Task, n *Node) (err error) {
	k := n.errand(opFlush)
	a.state.Store(atOnceFlushes)
	n.run(t, k, func(t *Task) { err = n.can.flusher.Flush(t) })
	if !a.state.CompareAndSwap(atOnceFlushes, atOnceChanges) {
		return errNoAnswer
	}
	return err
}

// change is the part of the loop after what had to be flushed. On the loop, which is the control plane.
func (a *atOnce) change(err error) {
	g := a.section.graph
	defer close(a.done)
	defer g.takeBack()
	a.tx = g.newTx()
	a.tx.byLoop = true
	if err == nil {
		err = a.tx.apply(func(tx *Tx) error { return a.fn(tx, a.section) })
	}
	g.takeOwn()
	if a.err = err; err == nil && len(a.tx.finish) == 0 {
		a.over = a.section.goOn()
	}
}

// wait is that of the control plane. Sections of others that end meanwhile are resumed. It is not done when the loop has found something in flight
// or ctx has ended before it looked; then the section has begun, and the wait of the drain goes on, or names whom it waits for.
func (a *atOnce) wait(ctx context.Context) (done bool, err error) {
	g := a.section.graph
	ended, begin := ctx.Done(), time.Now()
	var patience *time.Timer // none while ctx has one
	var impatient <-chan time.Time
	defer func() {
		if patience != nil {
			patience.Stop()
		}
	}()
	for {
		rung := g.toResume.next()
		g.resumeEnded()
		select {
		case <-a.done:
			return a.tx != nil, a.section.begins(a.refused)
		case <-rung:
		case <-ended:
			if a.state.CompareAndSwap(atOnceAsked, atOnceGivenUp) {
				return false, a.section.begins(g.quiesce(a.section, false))
			}
			ended = nil
			patience = time.NewTimer(DrainMaxDefault - time.Since(begin))
			impatient = patience.C
		case <-impatient:
			if a.state.CompareAndSwap(atOnceFlushes, atOnceGivenUp) {
				return true, a.noAnswer()
			}
			patience.Reset(atOnceSoon)
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
