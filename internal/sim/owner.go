package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// owner is a client with several connections: several Tasks that make requests through one Root, one after the other each.
type owner struct {
	// Immutable.
	w    *world
	name string
	rng  *rand.Rand
	root *blockcore.Root

	// Owned by the context.
	still    bool
	away     bool
	live     int  // connections
	closing  bool // they are to end
	limited  bool // a throttle group limits it, or did
	arrivals int  // requests that called Begin
	admitted int  // the last of them that was let in and is not limited

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

// connection is one Task after the other of an owner: a new one on each loop that its Root moves to.
type connection struct {
	*owner
	rng    *rand.Rand
	ticket blockcore.Ticket
}

// start begins a connection on the loop of the Root.
func (c *connection) start() {
	ctx := c.root.Context()
	if !ctx.Post(func() { ctx.Spawn(c) }) {
		c.w.Fail("root %s: its loop is closed", c.name)
	}
}

// Run makes requests until the owner closes. It implements blockcore.Body.
func (c *connection) Run(t *blockcore.Task) {
	for {
		if c.root.Context() != t.Context() {
			c.start()
			return
		}
		if c.closing {
			c.live--
			return
		}
		q := c.draw()
		if !q.perform(t) {
			c.w.Count("moved while held")
			continue
		}
		c.w.Progress()
		c.between(t)
	}
}

// between is what a connection does when it makes no request.
func (c *connection) between(t *blockcore.Task) {
	switch n := c.rng.IntN(100); {
	case n < 3 && !c.still && !c.closing:
		c.job(t)
	case n < 5 && c.w.requests < c.w.cfg.Requests && !c.closing:
		c.ask(t)
	case n < 30:
	case n < 50:
		t.Yield()
	default:
		t.Sleep(time.Duration(c.rng.IntN(500)) * time.Microsecond)
	}
	if c.w.requests > c.w.cfg.Requests {
		over := c.w.requests - c.w.cfg.Requests
		t.Sleep(time.Duration(over) * 100 * time.Microsecond) // the rest of the run is about changes
	}
}

// job is work of the owner that is no request.
func (c *connection) job(t *blockcore.Task) {
	c.own.Add(1)
	t.Sleep(time.Duration(c.rng.IntN(300)) * time.Microsecond)
	if s := c.w.ownerCoveredBy(c.owner); s != nil {
		c.w.Fail("root %s: a job runs in section %s", c.name, s.name)
	}
	if c.own.Add(-1) == 0 {
		c.root.Settled()
	}
}

// ask has the Task itself ask for a section.
func (c *connection) ask(t *blockcore.Task) {
	w := c.w
	who := w.newController(fmt.Sprintf("task%d", w.Tick()))
	w.Count("control by a task")
	_ = t.Control(func() error {
		defer who.finish()
		who.park(0)
		limit := time.Duration(1+who.rng.IntN(3000)) * time.Microsecond
		who.end(who.drain(&section{name: who.name, owners: []*owner{c.owner}}, limit))
		return nil
	})
}

// request is one request and what the model says about it.
type request struct {
	*connection
	op       string
	first, n int // cells
	volume   *volume
	tag      uint64
	err      error
}

var ops = []string{"read", "read", "read", "write", "write", "write", "write fua", "zero", "zero fua", "discard", "flush"}

// draw thinks of a request; a few go past the end.
func (c *connection) draw() *request {
	cells := int(c.root.Node().Size() / simkit.CellBytes)
	q := &request{connection: c, op: ops[c.rng.IntN(len(ops))]}
	if cells > 0 {
		q.first = c.rng.IntN(cells)
		if c.rng.IntN(2) == 0 {
			q.first %= 32 // where others are
		}
	}
	q.n = 1 + c.rng.IntN(20)
	if c.w.Now() < c.w.zeroing && q.op != "read" {
		q.op, q.n = "zero", 1+c.rng.IntN(8)
	}
	if c.rng.IntN(20) > 0 {
		q.n = min(q.n, max(cells-q.first, 0))
	}
	return q
}

func (q *request) reach() blockcore.Range {
	return blockcore.Range{Offset: int64(q.first) * simkit.CellBytes, Length: int64(q.n) * simkit.CellBytes}
}

// perform makes the request. It returns false where the Root has moved away.
func (q *request) perform(t *blockcore.Task) bool {
	w, o := q.w, q.owner
	k := &q.ticket
	k.Op, k.Range, k.Limited = q.op, q.reach(), o.limited
	k.Direction = blockcore.ThrottleWrite
	if q.op == "read" {
		k.Direction = blockcore.ThrottleRead
	}
	if q.op == "flush" {
		k.Range = blockcore.Range{}
	}
	o.arrivals++
	number := o.arrivals
	if o.root.Still() {
		w.Count("held")
	}
	if !o.root.Begin(t, k) {
		return false
	}
	q.admitted(number)
	if q.rng.IntN(2) == 0 {
		t.Yield()
	}
	q.volume = nil
	if d := storeOf(o.root.Node().Driver()); d != nil {
		q.volume = d.volume
	}
	q.tag = w.newTag()
	w.requests++
	w.Log("%s: %d %s [%d, +%d) tag %#x", o.name, number, q.op, q.first, q.n, q.tag)
	q.err = q.io(t)
	w.Log("%s: %d done: %v", o.name, number, q.err)
	q.judge(q.err)
	if s := w.ownerCoveredBy(o); s != nil {
		w.Fail("root %s: request %d ends inside of the settled section %s", o.name, number, s.name)
	}
	o.root.End(t, k)
	return true
}

// admitted checks when a request is let in.
func (q *request) admitted(number int) {
	o := q.owner
	if s := q.w.ownerCoveredBy(o); s != nil {
		q.w.Fail("root %s: request %d is admitted inside of the settled section %s", o.name, number, s.name)
	}
	if q.ticket.Limited { // it may have waited for its turn besides
		return
	}
	if number < o.admitted {
		q.w.Fail("root %s: request %d is admitted behind request %d", o.name, number, o.admitted)
	}
	o.admitted = number
}

func (q *request) inside() bool { return q.volume == nil || q.first+q.n <= len(q.volume.cells) }

// judge checks a result: what should work does, but for injected errors.
func (q *request) judge(err error) {
	writes := q.op != "read" && q.op != "flush"
	expected := error(nil)
	switch {
	case writes && q.root.Edge().Permissions()&blockcore.PermWrite == 0:
		expected = syscall.EPERM
	case q.op != "flush" && !q.inside() && (q.op == "read" || q.op == "discard"):
		expected = syscall.EINVAL
	case q.op != "flush" && !q.inside():
		expected = syscall.ENOSPC
	case errors.Is(err, errInjected):
		return
	}
	if !errors.Is(err, expected) {
		q.w.Fail("root %s: %s of %v: %v instead of %v", q.owner.name, q.op, q.reach(), err, expected)
	}
}

func (q *request) io(t *blockcore.Task) error {
	e, w := q.root.Edge(), q.w
	switch q.op {
	case "read":
		return q.read(t)
	case "flush":
		since := w.Tick()
		err := e.Flush(t)
		if err == nil && q.volume != nil {
			q.volume.flushed(since)
			w.Tick()
		}
		return err
	case "zero", "zero fua", "discard":
		q.tag = 0
	}
	fua := q.op == "write fua" || q.op == "zero fua"
	note := &simkit.Write{Tag: q.tag, Begin: w.Tick()}
	if q.volume != nil && q.inside() {
		q.volume.begin(note, q.first, q.n)
	}
	err := q.change(t, e, fua)
	note.Optional = err != nil || q.op == "discard"
	note.End = w.Tick()
	if err == nil && q.volume != nil && q.tag != 0 {
		q.volume.maybe = nil
	}
	note.Durable = fua && err == nil
	return err
}

func (q *request) change(t *blockcore.Task, e *blockcore.Edge, fua bool) error {
	switch q.op {
	case "zero":
		return e.WriteZeroes(t, q.reach(), blockcore.ZeroMayUnmap)
	case "zero fua":
		return e.WriteZeroes(t, q.reach(), blockcore.ZeroFUA)
	case "discard":
		return e.Discard(t, q.reach(), fua)
	}
	p := t.Buffers().Get(q.n * simkit.CellBytes)
	defer t.Buffers().Put(p)
	simkit.Fill(p, q.tag)
	var flags blockcore.WriteFlags
	if fua {
		flags = blockcore.WriteFUA
	}
	return e.Write(t, p, q.reach().Offset, flags)
}

func (q *request) read(t *blockcore.Task) error {
	p := t.Buffers().Get(q.n * simkit.CellBytes)
	defer t.Buffers().Put(p)
	begin := q.w.Tick()
	if err := q.root.Edge().Read(t, p, q.reach().Offset); err != nil || q.volume == nil {
		return err
	}
	now := q.w.Tick()
	for i := range q.n {
		tag, err := simkit.Tag(p[i*simkit.CellBytes : (i+1)*simkit.CellBytes])
		if err == nil {
			err = q.volume.check(q.first+i, tag, begin, now)
		}
		if err != nil {
			q.w.Fail("root %s reads: %v", q.owner.name, err)
			return nil
		}
	}
	return nil
}
