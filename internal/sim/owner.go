package sim

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

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

// open has a new export come, with clients.
func (c *controller) open() {
	w := c.w
	if len(w.owners) >= 8 {
		return
	}
	below := c.pickLayer(func(d driver) bool { return isData(d) && !w.hidden(d) })
	if below == nil {
		return
	}
	name := w.newName("root")
	o := &owner{w: w, name: name, rng: w.stream(name)}
	options := blockcore.RootOptions{Name: o.name, Owner: o, Writable: c.rng.IntN(6) > 0, Movable: c.rng.IntN(2) == 0}
	if c.rng.IntN(2) == 0 {
		options.Owner = mover{o, w.stream(name + " veto")}
	}
	if c.rng.IntN(10) == 0 {
		options.Unshared = blockcore.PermResize
	}
	err := c.update("open "+o.name, func(tx *blockcore.Tx) error {
		if !w.here(below.common()) || !isData(below) || w.hidden(below) {
			return errGone
		}
		r, err := tx.NewRoot(below.common().node, options)
		o.root = r
		return err
	})
	if err != nil {
		return
	}
	w.owners = append(w.owners, o)
	for left := 1 + c.rng.IntN(4); left > 0; {
		lines := 1 + c.rng.IntN(left)
		o.connect(lines, nil, (*line).start)
		left -= lines
	}
}

// shut has an owner go: its clients make no more requests, or are thrown out, those in flight end, and its Root is closed.
func (c *controller) shut() {
	for len(c.sections) > 0 {
		c.endOne() // which could hold back what is waited for
	}
	o, ok := pick(c.rng, c.w.owners)
	if !ok || o.closing {
		return
	}
	if c.rng.IntN(2) == 0 {
		o.byLoop(o.throwOut)
	}
	c.closeOwner(o)
}

func (c *controller) closeOwner(o *owner) {
	w := c.w
	o.closing = true
	since, rest := w.Now(), 100*time.Microsecond
	for o.live > 0 || o.own.Load() > 0 {
		c.park(rest)
		rest += rest / 4
		if w.Now()-since > stuckMax {
			w.Fail("root %s does not become idle: %s", o.name, w.describe())
			c.park(0)
		}
	}
	w.owners = slices.DeleteFunc(slices.Clone(w.owners), func(other *owner) bool { return other == o })
	if n := o.root.InFlight(); n != 0 {
		w.Fail("root %s has %d requests in flight and no client", o.name, n)
	}
	o.root.Close()
	c.park(0)
	w.updated = w.Tick()
	w.Count("closed")
}
