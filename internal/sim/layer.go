package sim

import (
	"nbd-dataplane/blockcore"
)

// layer is what all drivers of the simulation have in common: their place in the graph, and the checks of when they are called.
type layer struct {
	w    *world
	name string
	self blockcore.Driver

	// Changed only by a Tx.
	node    *blockcore.Node
	file    *blockcore.Edge // what is below; nil for a disk
	backing *blockcore.Edge // of an image; nil = nothing
	target  *blockcore.Edge // what gets the writes as well; nil = nothing

	// Owned by the context.
	running int  // requests in it
	still   bool // between Quiesce and Resume
	away    bool // between Detach and Attach
	closed  bool
	bitmaps []*bitmap
	recent  []blockcore.Range // writes since the node was last seen to have nothing in flight
	volume  *volume           // what clients see of it, of a disk or an image; nil = it is nobody's, and its contents are not checked
}

// driver is a driver of the simulation.
type driver interface {
	blockcore.Driver
	common() *layer
}

func (l *layer) init(w *world, name string, self blockcore.Driver) {
	l.w, l.name, l.self = w, name, self
}

func (l *layer) common() *layer { return l }

// SetNode implements blockcore.Adopter.
func (l *layer) SetNode(n *blockcore.Node) { l.node = n }

// Close implements blockcore.Driver.
func (l *layer) Close(*blockcore.Task) error {
	if l.closed || l.running > 0 {
		l.w.Fail("node %s is closed twice, or with %d requests", l.name, l.running)
	}
	l.closed = true
	l.w.Log("%s: closed", l.name)
	return nil
}

// Quiesce implements blockcore.Quiescer.
func (l *layer) Quiesce() {
	l.w.Log("%s: quiesce", l.name)
	if l.still {
		l.w.Fail("node %s is quiesced twice", l.name)
	}
	l.still = true
	for _, above := range l.w.layers {
		if l.w.calm() && !above.common().still && above.common().uses(l.self) {
			l.w.Fail("node %s is quiesced before %s, which uses it", l.name, above.common().name)
		}
	}
}

// Resume implements blockcore.Quiescer.
func (l *layer) Resume() {
	l.w.Log("%s: resume", l.name)
	if !l.still {
		l.w.Fail("node %s is resumed and was not quiesced", l.name)
	}
	if below := childOf(l.self); below != nil && below.common().still && l.w.calm() {
		l.w.Fail("node %s is resumed before %s, which it uses", l.name, below.common().name)
	}
	l.still = false
	l.unsure(func(blockcore.Range) {})
}

// Detach implements blockcore.ContextFollower.
func (l *layer) Detach() {
	if l.away || l.running > 0 {
		l.w.Fail("node %s leaves its loop twice, or with %d requests", l.name, l.running)
	}
	l.away = true
}

// Attach implements blockcore.ContextFollower.
func (l *layer) Attach(ctx *blockcore.AioContext) {
	if !l.away || l.w.loopOf(ctx) == nil {
		l.w.Fail("node %s comes to a loop and has not left one", l.name)
	}
	l.away = false
}

// enter notes a request that begins; what it returns notes the end. The control plane itself may read in what it changes, down to the disk.
func (l *layer) enter(what string) func() {
	if what == "read" && l.w.attending() {
		return l.enterDrained(what)
	}
	l.mayRun(what + " begins")
	l.running++
	return func() {
		l.mayRun(what + " ends")
		l.running--
	}
}

// enterDrained is enter for what the control plane does in drained sections.
func (l *layer) enterDrained(what string) func() {
	if l.closed || l.away {
		l.w.Fail("node %s: %s, closed %t, between two loops %t", l.name, what, l.closed, l.away)
	}
	return func() {}
}

// enterFlush is enter for a flush. The control plane itself flushes what it removes or resizes, down to the disk, whatever sections cover it.
func (l *layer) enterFlush() func() {
	if l.w.attending() {
		return l.enterDrained("flush")
	}
	return l.enter("flush")
}

func (w *world) attending() bool { return w.attended > 0 }

// mayRun checks that no settled section covers the layer, and that it is where it should be.
func (l *layer) mayRun(what string) {
	if l.closed || l.away {
		l.w.Fail("node %s: %s, closed %t, between two loops %t", l.name, what, l.closed, l.away)
	}
	if l.node == nil || l.w.Running == nil || l.node.Context() != l.w.Running.AioContext {
		l.w.Fail("node %s: %s on another loop than its own", l.name, what)
	}
	if s := l.w.coveredBy(l.self); s != nil {
		l.w.Fail("node %s: %s inside of the settled section %s", l.name, what, s.name)
	}
}

// uses reports whether a driver is a child.
func (l *layer) uses(d blockcore.Driver) bool {
	for _, e := range l.children() {
		if e.Node().Driver() == d {
			return true
		}
	}
	return false
}

// children are the edges downwards.
func (l *layer) children() []*blockcore.Edge {
	var list []*blockcore.Edge
	for _, e := range []*blockcore.Edge{l.file, l.backing, l.target} {
		if e != nil {
			list = append(list, e)
		}
	}
	return list
}

// childOf returns what is below a driver, or nil.
func childOf(d blockcore.Driver) driver {
	if l := d.(driver).common(); l.file != nil {
		return l.file.Node().Driver().(driver)
	}
	return nil
}

// storeOf returns what has the contents that a driver shows, a disk or an image; nil = the chain is open.
func storeOf(d blockcore.Driver) *layer {
	for {
		if isStore(d) {
			return d.(driver).common()
		}
		below := childOf(d)
		if below == nil {
			return nil
		}
		d = below
	}
}

func isStore(d blockcore.Driver) bool {
	switch d.(type) {
	case *disk, *image:
		return true
	}
	return false
}
