package blockcore

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// DrainOptions say what to drain. Who uses what is drained is drained too, up to the owners; what is below is not.
type DrainOptions struct {
	// Why is told to whoever asks who holds the section.
	Why string
	// ID is by what its holder can be asked about it; "" = nobody can.
	ID    string
	Nodes []*Node
	Roots []*Root
	// All drains every node there is, and covers those that are made in the section.
	All bool
	// connected drains all that shares requests with Nodes as well.
	connected bool
	// FlushAhead flushes Nodes before the section begins, for a flush in the section to have little to do.
	FlushAhead bool
	// Flush has Change make these nodes durable in the section, before anything is changed.
	Flush []*Node
	// Brief says that what Change is given waits for no loop while all it concerns is on one.
	Brief bool
	// Max bounds the wait; 0 takes DrainMaxDefault. An earlier end of the caller's context ends it too.
	Max time.Duration
}

// DrainMaxDefault bounds how long a drain waits for requests in flight: longer than a disk takes to report an error, shorter
// than an operator takes to lose patience.
const DrainMaxDefault = 30 * time.Second

// Drained is a section of time in which what it covers has nothing in flight and starts nothing. Sections nest and
// overlap. Each is ended by End, by whoever holds it.
//
// Analogous to the time between QEMU's bdrv_drained_begin and bdrv_drained_end.
type Drained struct {
	// Immutable.
	graph *Graph
	why   string
	id    string
	all   bool
	nodes []*Node
	roots []*Root
	begun time.Time
	over  chan struct{} // closed when all loops have resumed

	// Guarded by graph.mu.
	ahead     bool    // it flushes ahead
	asked     bool    // a loop was asked to begin it
	began     bool    // what it covers has been told, or is going to be
	steps     []*step // what the loops were told for it
	settled   bool
	settledAt time.Time
	ended     bool
	endedAt   time.Time
	timings   Timings // without Resume

	// Safe from anywhere.
	resume atomic.Int64 // Timings.Resume, when the section is over
}

// Timings tell how long each phase of a drain took.
type Timings struct {
	Throttle time.Duration // limits off, waiters released
	Unplug   time.Duration // what was queued is submitted
	Quiesce  time.Duration // sources stopped, parents first
	Settle   time.Duration // the wait for what was in flight
	Held     time.Duration // from then to End
	Resume   time.Duration // from End until every loop has resumed; requests that were held back have gone on by then
}

// Drain quiesces what o names and waits until nothing of it is in flight. When ctx or o.Max ends first, everything is resumed
// and the error, a *DrainError, names whom the drain waited for. Not on a loop: a Task uses Task.Control.
func (g *Graph) Drain(ctx context.Context, o DrainOptions) (*Drained, error) {
	ctx, cancel := context.WithTimeout(ctx, o.max())
	defer cancel()
	d, err := g.section(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := g.begin(ctx, d, o.connected); err != nil {
		return nil, err
	}
	if err := g.settle(ctx, d); err != nil {
		return nil, err
	}
	d.announce()
	return d, nil
}

func (o *DrainOptions) max() time.Duration {
	if o.Max == 0 {
		return DrainMaxDefault
	}
	return o.Max
}

// section enters a section that begins later, and does what is done ahead of it.
func (g *Graph) section(ctx context.Context, o DrainOptions) (*Drained, error) {
	d := &Drained{graph: g, why: o.Why, id: o.ID, all: o.All, nodes: slices.Clone(o.Nodes), roots: slices.Clone(o.Roots),
		begun: time.Now(), over: make(chan struct{})}
	g.enter(d)
	if o.FlushAhead {
		if err := g.flushAhead(ctx, d, o.max()/2); err != nil {
			g.leave(d)
			return nil, err
		}
	}
	return d, nil
}

// begin is phases one to three.
func (g *Graph) begin(ctx context.Context, d *Drained, connected bool) error {
	err := g.lock(ctx)
	if err == nil {
		err = g.quiesce(d, connected)
		g.unlock()
	}
	return d.begins(err)
}

// begins takes the section off the list if it does not begin.
func (d *Drained) begins(err error) error {
	if err == nil {
		return nil
	}
	d.graph.leave(d)
	return fmt.Errorf("drain for %s: %w", d.why, err)
}

// settle is phase four. When that fails the section is ended.
func (g *Graph) settle(ctx context.Context, d *Drained) error {
	cause := g.await(ctx, d)
	if cause == nil {
		return nil
	}
	err := g.gaveUp(d, cause)
	d.End()
	return err
}

// announce tells that the section has begun; nil is none.
func (d *Drained) announce() {
	if d != nil {
		d.graph.emit(DrainSettled{Why: d.why, Timings: d.Timings()})
	}
}

// gaveUp tells whom d waits for when nobody waits any longer.
func (g *Graph) gaveUp(d *Drained, cause error) error {
	err := &DrainError{Why: d.why, After: time.Since(d.begun), Culprits: stacks(g.WaitsFor(d)), cause: cause}
	g.emit(DrainFailed{Why: d.why, Err: err})
	return err
}

// enter has d listed, and leave has it listed no more.
func (g *Graph) enter(d *Drained) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetOver()
	g.sections[d] = struct{}{}
}

func (g *Graph) leave(d *Drained) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sections, d)
}

// forgetOver drops the sections that are over from the list: loops, which end them, take graph.mu for no more than a change that they make
// themselves (atOnce). It is held.
func (g *Graph) forgetOver() {
	for d := range g.sections {
		if d.isOver() {
			delete(g.sections, d)
		}
	}
}

// quiesce has what d covers counted, and the loops told. The control plane is held.
func (g *Graph) quiesce(d *Drained, connected bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range d.nodes {
		if g.nodes[n.name] != n {
			return fmt.Errorf("node %s is gone", n.name)
		}
	}
	for _, r := range d.roots {
		if r.gone {
			return fmt.Errorf("owner %s is gone", r.name)
		}
	}
	var w walk
	if connected {
		d.nodes, _ = g.component(d.nodes[0])
	}
	if d.all {
		g.drainAll++
		d.nodes = g.sorted()
	}
	for _, n := range d.nodes {
		w.quiesceNode(n)
	}
	for _, r := range d.roots {
		w.quiesceRoot(r)
	}
	d.began, d.steps = true, w.tell(g)
	return nil
}

// await is the one wait of a drain.
func (g *Graph) await(ctx context.Context, d *Drained) error {
	for _, s := range d.steps { // nobody else changes them any more
		select {
		case <-s.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	begin := time.Now()
	for {
		rung := g.bell.next()
		if !d.busy() {
			d.settle(begin)
			return nil
		}
		select {
		case <-rung:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (d *Drained) settle(begin time.Time) {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	d.settled, d.settledAt = true, time.Now()
	for _, s := range d.steps {
		d.timings.Throttle = max(d.timings.Throttle, s.took[0])
		d.timings.Unplug = max(d.timings.Unplug, s.took[1])
		d.timings.Quiesce = max(d.timings.Quiesce, s.took[2])
	}
	d.timings.Settle = d.settledAt.Sub(begin)
}

// busy reports whether something that d covers has requests in flight, or does not know yet that it is to be quiet: another section
// may have told it a moment ago. It looks at the graph as it is now, and at counts and edges under one hold of graph.mu: a list from before
// would have it wait for somebody who is above no longer, and whose end nobody announces.
//
// INVARIANT: a parent is looked at before its children. A request that ends between two looks hands what it leaves behind to
// the children first, and is found there.
func (d *Drained) busy() bool {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	nodes, roots := d.coverage()
	for _, r := range roots {
		if r.telling.Load() != 0 || r.Busy() {
			return true
		}
	}
	for _, n := range nodes {
		if n.telling.Load() != 0 || n.inFlight.Load() != 0 {
			return true
		}
	}
	return false
}

// coverage returns what d drains: its nodes and Roots, and all who use them, parents first. graph.mu is held.
func (d *Drained) coverage() (nodes []*Node, roots []*Root) {
	seen := map[any]bool{}
	root := func(r *Root) {
		if !seen[r] {
			seen[r] = true
			roots = append(roots, r)
		}
	}
	var climb func(n *Node)
	climb = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		for _, e := range n.parents {
			if e.root != nil {
				root(e.root)
			} else {
				climb(e.parent)
			}
		}
		nodes = append(nodes, n)
	}
	if d.all {
		for _, n := range d.graph.sorted() {
			climb(n)
		}
	}
	for _, n := range d.nodes {
		if d.graph.nodes[n.name] == n {
			climb(n)
		}
	}
	for _, r := range d.roots {
		if !r.gone {
			root(r)
		}
	}
	return nodes, roots
}

// End resumes what d covers; requests that were held back go first, in order. It does not wait for a loop, and ending
// twice, or what has not begun, is harmless. Safe from anywhere.
func (d *Drained) End() {
	if !d.markEnded() {
		return
	}
	// Who changes the graph just now ends the section for us: waiting for that might take as long as a loop does.
	g := d.graph
	if g.tryLock() {
		g.unlock()
	} else {
		g.toResume.ring()
		g.bell.ring()
	}
}

// markEnded leaves the rest to the control plane, unless d has ended already, or has not begun.
func (d *Drained) markEnded() bool {
	g := d.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if d.ended || !d.began {
		return false
	}
	d.ended, d.endedAt = true, time.Now()
	if d.settled {
		d.timings.Held = d.endedAt.Sub(d.settledAt)
	}
	g.ending = append(g.ending, d)
	return true
}

// resume is phase five. The control plane and graph.mu are held.
//
// INVARIANT: what was counted is uncounted, in nodes too that a change has taken out, as it may be undone. Those that are gone for good have a section of their
// own that does not end.
func (g *Graph) resume(d *Drained) *resumption {
	g.forgetOver()
	r := &resumption{section: d, settled: d.settled, timings: d.timings, begun: d.endedAt}
	w := walk{resumption: r}
	if d.all {
		g.drainAll--
		d.nodes = g.sorted()
	}
	for _, r := range slices.Backward(d.roots) {
		w.resumeRoot(r)
	}
	for _, n := range slices.Backward(d.nodes) {
		w.resumeNode(n)
	}
	w.tell(g)
	return r
}

// Why returns what the section is for. Safe from anywhere.
func (d *Drained) Why() string { return d.why }

// ID returns by what its holder can be asked about the section, or "". Safe from anywhere.
func (d *Drained) ID() string { return d.id }

// Begun returns when the drain was asked for. Safe from anywhere.
func (d *Drained) Begun() time.Time { return d.begun }

// Timings returns how long the phases took. Safe from anywhere.
func (d *Drained) Timings() Timings {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	t := d.timings
	t.Resume = time.Duration(d.resume.Load())
	return t
}

// Held returns for how long the section has been still, until now or until its end. Safe from anywhere.
func (d *Drained) Held() time.Duration {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	if !d.settled || d.ended {
		return d.timings.Held
	}
	return time.Since(d.settledAt)
}

// Over is closed when the section has ended and every loop has resumed what it covered. Safe from anywhere.
func (d *Drained) Over() <-chan struct{} { return d.over }

// Settled reports whether the wait is over and what d covers is still. Safe from anywhere.
func (d *Drained) Settled() bool {
	d.graph.mu.Lock()
	defer d.graph.mu.Unlock()
	return d.settled
}

// covers reports whether d holds n still. graph.mu is held.
func (d *Drained) covers(n *Node, r *Root) bool {
	if d == nil || d.ended || !d.settled {
		return false
	}
	nodes, roots := d.coverage()
	return n != nil && slices.Contains(nodes, n) || r != nil && slices.Contains(roots, r)
}
