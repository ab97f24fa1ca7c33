package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
)

// client is one connection to an export, with several requests in flight. It may end at any time, as an NBD connection does: what it has in flight goes on, and
// whoever it was comes back over another one.
type client struct {
	*owner

	// Immutable.
	name   string
	haunts []span // what the one that it was before had in flight

	// Owned by the context.
	gone     bool  // its connection has ended: its lines begin nothing any more
	cut      int64 // tick at which it was thrown out: what has not begun is dropped; 0 = it was not
	hushed   int   // owner.hushes then,
	wasStill bool  // and owner.still
}

// span is some cells.
type span struct{ first, n int }

// String names the client to the block layer.
func (c *client) String() string { return c.name }

// connect has a client come that makes so many requests at a time, the first of them about haunts. On the loop of the Root, or before anybody else knows it.
func (o *owner) connect(lines int, haunts []span, start func(*line)) {
	o.named++
	c := &client{owner: o, name: fmt.Sprintf("%s/%d", o.name, o.named), haunts: haunts}
	o.clients = append(o.clients, c)
	o.live += lines
	for i := range lines {
		start(&line{client: c, rng: o.w.stream(c.name + " " + string(rune('a'+i)))})
	}
}

// onLoop has fn run on the loop of the Root, wherever that is by then.
func (o *owner) onLoop(fn func()) {
	ctx := o.root.Context()
	posted := ctx.Post(func() {
		if o.root.Context() != ctx {
			o.onLoop(fn)
			return
		}
		fn()
	})
	if !posted {
		o.w.Fail("root %s: its loop is closed", o.name)
	}
}

// byLoop is onLoop for what may take the graph's lock: nobody is preempted meanwhile who holds it.
func (o *owner) byLoop(fn func()) {
	o.w.locks(+1)
	o.onLoop(func() {
		fn()
		o.w.locks(-1)
	})
}

// leave has a client go with what it has in flight. cut: it is thrown out, as nbd does it: what has not begun is not wanted any more. On the loop of the Root.
func (c *client) leave(cut bool) {
	o := c.owner
	o.w.Log("%s: gone, thrown out %t, with %d requests", c.name, cut, len(c.left()))
	c.gone = true
	o.clients = slices.DeleteFunc(o.clients, func(other *client) bool { return other == c })
	for _, q := range c.left() {
		for _, later := range o.pending {
			later.mayWait = later.mayWait || later.follows(q)
		}
	}
	o.root.Orphan(c, len(c.left()))
	if !cut {
		return
	}
	c.cut, c.hushed, c.wasStill = o.w.Tick(), o.hushes, o.still
	o.root.Dismiss(c)
	if o.rng.IntN(2) > 0 {
		return
	}
	for _, q := range c.left() {
		q.want(false)
	}
	o.root.Cancel(c)
}

// left is what the client has in flight, or is held of it.
func (c *client) left() (list []*request) {
	for _, q := range c.pending {
		if q.client == c {
			list = append(list, q)
		}
	}
	return list
}

// relieve has a client go that has something in flight, and come back at once.
func (o *owner) relieve(cut bool, lines int) {
	var list []*client
	for _, c := range o.clients {
		if len(c.left()) > 0 {
			list = append(list, c)
		}
	}
	c, ok := pick(o.rng, list)
	if !ok || o.closing || o.live > 12 {
		return
	}
	var haunts []span
	for _, q := range c.left() {
		haunts = append(haunts, span{q.first, q.n})
	}
	c.leave(cut)
	o.w.Count("clients gone")
	o.connect(lines, haunts, func(l *line) { o.root.Context().Spawn(l) })
}

// throwOut has all clients go, and does not wait for those that have gone. On the loop of the Root.
func (o *owner) throwOut() {
	list := slices.Clone(o.clients)
	for _, q := range o.pending {
		if !slices.Contains(list, q.client) {
			list = append(list, q.client)
		}
	}
	for _, c := range list {
		c.leave(true)
	}
}

// vanish has clients go with requests in flight.
func (c *controller) vanish() {
	o, ok := pick(c.rng, c.w.owners)
	if !ok {
		return
	}
	for range 1 + c.rng.IntN(3) {
		cut, lines := c.rng.IntN(3) == 0, 1+c.rng.IntN(3)
		o.byLoop(func() { o.relieve(cut, lines) })
		c.park(c.duration(300 * time.Microsecond))
	}
}

// line is one request after the other of a client: one Task after the other, a new one on each loop that its Root moves to.
type line struct {
	*client
	rng    *rand.Rand
	made   int      // requests
	again  *request // one that has moved away and is to begin on the next loop
	ticket blockcore.Ticket
}

// start begins a line on the loop of the Root.
func (l *line) start() {
	ctx := l.root.Context()
	if !ctx.Post(func() { ctx.Spawn(l) }) {
		l.w.Fail("root %s: its loop is closed", l.owner.name)
	}
}

// Run makes requests until the client goes, or the owner closes. It implements blockcore.Body.
func (l *line) Run(t *blockcore.Task) {
	for {
		if l.root.Context() != t.Context() {
			l.start()
			return
		}
		if l.again == nil && (l.closing || l.gone) {
			l.live--
			return
		}
		q := l.next()
		if !q.perform(t) {
			l.w.Count("moved while held")
			continue
		}
		l.w.Progress()
		l.between(t)
	}
}

// between is what a line does when it makes no request.
func (l *line) between(t *blockcore.Task) {
	switch n := l.rng.IntN(100); {
	case n < 3 && !l.still && !l.closing:
		l.job(t)
	case n < 5 && l.w.requests < l.w.cfg.Requests && !l.closing:
		l.ask(t)
	case n < 30:
	case n < 50:
		t.Yield()
	default:
		t.Sleep(time.Duration(l.rng.IntN(500)) * time.Microsecond)
	}
	if l.w.requests > l.w.cfg.Requests {
		over := l.w.requests - l.w.cfg.Requests
		t.Sleep(time.Duration(over) * 100 * time.Microsecond) // the rest of the run is about changes
	}
}

// job is work of the owner that is no request.
func (l *line) job(t *blockcore.Task) {
	l.own.Add(1)
	t.Sleep(time.Duration(l.rng.IntN(300)) * time.Microsecond)
	if s := l.w.ownerCoveredBy(l.owner); s != nil {
		l.w.Fail("root %s: a job runs in section %s", l.owner.name, s.name)
	}
	if l.own.Add(-1) == 0 {
		l.root.Settled()
	}
}

// ask has the Task itself ask for a section.
func (l *line) ask(t *blockcore.Task) {
	w := l.w
	who := w.newController(fmt.Sprintf("task%d", w.Tick()))
	w.Count("control by a task")
	_ = t.Control(func() error {
		defer who.finish()
		who.park(0)
		limit := time.Duration(1+who.rng.IntN(3000)) * time.Microsecond
		who.end(who.drain(&section{name: who.name, owners: []*owner{l.owner}}, limit))
		return nil
	})
}
