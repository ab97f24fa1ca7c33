package blockcore

import (
	"sync/atomic"
	"time"
)

// A quiesce step has two halves. In the control plane a walk over the graph counts: how many sections cover each node and
// Root. What changes between covered and not covered is then told to the loops, in one function for each loop. So the callbacks fire once
// however sections nest and overlap, and a change that takes a section away and gives another one in the same step
// is not noticed at all.

// quiet is what a section covers: a Node or a Root.
type quiet interface {
	// change brings what the loop was told up to date, and reports the loop and whether there was news. graph.mu is held.
	change() (on *AioContext, still, news bool)
	// tellings counts the steps that the loop has been told and has not taken.
	tellings() *atomic.Int32
	hush()
	stir()
}

func (n *Node) change() (*AioContext, bool, bool) {
	still := n.quiesce > 0
	news := still != n.told
	n.told = still
	return n.Context(), still, news
}

func (n *Node) tellings() *atomic.Int32 { return &n.telling }

// change has no news for a Root that is closed: its owner may be gone.
func (r *Root) change() (*AioContext, bool, bool) {
	still := r.quiesce > 0
	news := still != r.told && !r.gone
	if news {
		r.told = still
	}
	return r.Context(), still, news
}

func (r *Root) tellings() *atomic.Int32 { return &r.telling }

// walk collects what changes in a step, in the order in which it is to be told: parents before children when they are hushed, children
// before parents when they stir. graph.mu is held.
type walk struct {
	touched    []quiet
	resumption *resumption // of the section whose end this is; nil = of none
}

// quiesceNode counts one more section on n. Its parents come first: a parent that does not start requests leaves its child quiet.
func (w *walk) quiesceNode(n *Node) {
	n.quiesce++
	if n.quiesce > 1 {
		return
	}
	for _, e := range n.parents {
		w.quiesceParent(e)
	}
	w.touched = append(w.touched, n)
}

// quiesceParent covers whoever uses a quiet child.
func (w *walk) quiesceParent(e *Edge) {
	if e.quietParent {
		return
	}
	e.quietParent = true
	if e.root != nil {
		w.quiesceRoot(e.root)
		return
	}
	w.quiesceNode(e.parent)
}

func (w *walk) quiesceRoot(r *Root) {
	r.quiesce++
	if r.quiesce == 1 {
		w.touched = append(w.touched, r)
	}
}

// resumeNode takes one section off n.
func (w *walk) resumeNode(n *Node) {
	n.quiesce--
	if n.quiesce > 0 {
		return
	}
	w.touched = append(w.touched, n)
	for _, e := range n.parents {
		w.resumeParent(e)
	}
}

func (w *walk) resumeParent(e *Edge) {
	if !e.quietParent {
		return
	}
	e.quietParent = false
	if e.root != nil {
		w.resumeRoot(e.root)
		return
	}
	w.resumeNode(e.parent)
}

func (w *walk) resumeRoot(r *Root) {
	r.quiesce--
	if r.quiesce == 0 { // not before: the place in the list is that of the last section, behind what is below
		w.touched = append(w.touched, r)
	}
}

// step is what one loop is told. It is run there, once.
type step struct {
	graph      *Graph
	on         *AioContext
	hush       []quiet
	stir       []quiet
	waits      bool          // a step was told before that concerns the same and has not run
	done       chan struct{} // closed when it has run
	took       [3]time.Duration
	resumption *resumption  // whose part it is; nil = no section's end
	phase      atomic.Int32 // a Phase: how far a section has got by it
}

// tell sends what has changed to the loops and returns what was sent. A loop that makes the change itself takes its step itself (Graph.takeOwn).
// graph.mu is held.
func (w *walk) tell(g *Graph) []*step {
	steps := map[*AioContext]*step{}
	var order []*step
	for _, q := range w.touched {
		on, still, news := q.change()
		if !news {
			continue
		}
		s := steps[on]
		if s == nil {
			s = &step{graph: g, on: on, done: make(chan struct{}), resumption: w.resumption}
			s.phase.Store(int32(PhaseThrottle))
			steps[on] = s
			order = append(order, s)
		}
		if q.tellings().Add(1) > 1 {
			s.waits = true
		}
		if still {
			s.hush = append(s.hush, q)
		} else {
			s.stir = append(s.stir, q)
		}
	}
	w.touched = nil
	w.resumption.expect(len(order))
	for _, s := range order {
		if s.on == g.lent && !s.waits {
			g.own = append(g.own, s)
		} else if !s.on.Post(s.run) {
			s.taken() // a context that is closed has nothing in flight
		}
	}
	return order
}

// lend has a loop be the control plane until takeBack: what the loop is told of its own, it does without being posted to. On the loop, while
// the control plane is held by somebody who waits for it.
func (g *Graph) lend(on *AioContext) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lent = on
}

// takeOwn runs what the loop has been told of its own. On the loop, which is the control plane.
//
// INVARIANT: steps that concern the same are run in the order in which they were told. What waits behind a step that was posted is posted, too.
func (g *Graph) takeOwn() {
	for more := true; more; {
		more = g.takeSome(false)
	}
}

// takeBack ends lend.
func (g *Graph) takeBack() {
	for more := true; more; {
		more = g.takeSome(true)
	}
}

// takeSome runs what is there and reports whether there was anything. If there was nothing, last has the loop be the control plane no longer.
func (g *Graph) takeSome(last bool) bool {
	g.mu.Lock()
	own := g.own
	g.own = nil
	if last && len(own) == 0 {
		g.lent = nil
	}
	g.mu.Unlock()
	for _, s := range own {
		s.run()
	}
	return len(own) > 0
}

// run is the three phases of a drain that do not wait. On the loop.
func (s *step) run() {
	begin := time.Now()
	for _, q := range s.hush {
		if r, ok := q.(*Root); ok && r.throttle != nil {
			r.throttle.Suspend()
		}
	}
	unplug := s.enters(PhaseUnplug)
	if len(s.hush) > 0 {
		s.on.engine.submit()
	}
	quiesce := s.enters(PhaseQuiesce)
	for _, q := range s.hush {
		q.hush()
	}
	for _, q := range s.stir {
		if r, ok := q.(*Root); ok && r.throttle != nil {
			r.throttle.Resume()
		}
		q.stir()
	}
	s.took = [3]time.Duration{unplug.Sub(begin), quiesce.Sub(unplug), time.Since(quiesce)}
	s.taken()
	if len(s.hush) > 0 {
		s.graph.bell.ring() // whose sections overlap may wait for a step that another one has sent
	}
}

// enters notes that a phase begins now.
func (s *step) enters(p Phase) time.Time {
	s.phase.Store(int32(p))
	return time.Now()
}

// taken says that the loop has done what it was told.
func (s *step) taken() {
	for _, q := range s.hush {
		q.tellings().Add(-1)
	}
	for _, q := range s.stir {
		q.tellings().Add(-1)
	}
	s.phase.Store(int32(PhaseSettle))
	close(s.done)
	s.resumption.resumed()
}
