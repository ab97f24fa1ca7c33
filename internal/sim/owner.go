package sim

import (
	"errors"
	"math/rand/v2"
	"sync/atomic"

	"nbd-dataplane/blockcore"
)

// owner is an export: clients make requests through its Root.
type owner struct {
	// Immutable.
	w    *world
	name string
	rng  *rand.Rand
	root *blockcore.Root

	// Owned by the context.
	still    bool
	away     bool
	hushes   int // how often it was quiesced
	clients  []*client
	named    int        // clients that there were
	live     int        // lines of theirs
	closing  bool       // they are to end
	limited  bool       // a throttle group limits it, or did
	arrivals int        // requests that called Begin
	admitted int        // the last of them that was let in and waited for nothing of its own
	pending  []*request // those that have not ended, in the order of their coming

	// Safe from anywhere.
	own atomic.Int64 // jobs that are no requests
}

func (o *owner) String() string { return o.name }

// Quiesce implements blockcore.Owner.
func (o *owner) Quiesce() {
	o.w.Log("%s: quiesce", o.name)
	if o.still {
		o.w.Fail("root %s is quiesced twice", o.name)
	}
	o.still = true
	o.hushes++
	if d := o.root.Node().Driver().(driver).common(); d.still && o.w.calm() && !o.closing {
		o.w.Fail("root %s is quiesced after node %s, which it uses", o.name, d.name)
	}
}

// Busy implements blockcore.Owner. Whoever looks at counts may be overtaken by loops just here.
func (o *owner) Busy() bool {
	o.w.preempt()
	return o.own.Load() > 0
}

// Resume implements blockcore.Owner.
func (o *owner) Resume() {
	o.w.Log("%s: resume", o.name)
	if !o.still {
		o.w.Fail("root %s is resumed and was not quiesced", o.name)
	}
	o.still = false
	if d := o.root.Node().Driver().(driver).common(); d.still && o.w.calm() && !o.closing {
		o.w.Fail("root %s is resumed before node %s, which it uses", o.name, d.name)
	}
}

// Resized implements blockcore.SizeWatcher: the new size is in force.
func (o *owner) Resized(sizeBytes int64) {
	if sizeBytes != o.root.Node().Size() {
		o.w.Fail("root %s is told of %d bytes and has %d", o.name, sizeBytes, o.root.Node().Size())
	}
}

// mover is an owner that follows its node, if it likes.
type mover struct {
	*owner
	veto *rand.Rand // of MayMove
}

var errVeto = errors.New("the owner does not like to move")

// MayMove implements blockcore.Mover.
func (m mover) MayMove(*blockcore.AioContext) error {
	if m.veto.IntN(4) == 0 {
		return errVeto
	}
	return nil
}

// Detach implements blockcore.Mover.
func (m mover) Detach(*blockcore.AioContext) {
	if m.away || !m.still || m.root.InFlight() > 0 {
		m.w.Fail("root %s leaves its loop: away %t, quiesced %t, %d requests", m.name, m.away, m.still, m.root.InFlight())
	}
	m.away = true
}

// Attach implements blockcore.Mover.
func (m mover) Attach(ctx *blockcore.AioContext) {
	if !m.away || ctx != m.root.Context() {
		m.w.Fail("root %s comes to a loop: away %t, its own %t", m.name, m.away, ctx == m.root.Context())
	}
	m.away = false
}
