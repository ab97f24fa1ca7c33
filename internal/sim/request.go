package sim

import (
	"errors"
	"syscall"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// request is one request and what the model says about it.
type request struct {
	*line
	op       string
	first, n int // cells
	volume   *volume
	tag      uint64
	note     *simkit.Write // what it has begun to change; nil = nothing
	err      error

	number   int     // of those that came to the Root
	arrived  int64   // tick at which it came
	came     voyages // world.voyages then
	begun    bool
	ended    bool
	unwanted bool       // it may end early
	mayWait  bool       // for what somebody has left behind
	after    []*request // those that it has to come after: their clients had gone, and they change what this one is about
	late     []lateness // of this one: what has to come after it has begun
}

// lateness says by when cells of a request should have been done.
type lateness struct {
	span
	by int64
}

var ops = []string{"read", "read", "read", "write", "write", "write", "write fua", "zero", "zero fua", "discard", "flush"}

// haunting is how many requests a line makes first where something was left behind.
const haunting = 6

// next thinks of a request, unless one has moved away and is to begin again; a few go past the end.
func (l *line) next() *request {
	if q := l.again; q != nil {
		l.again = nil
		return q
	}
	cells := int(l.root.Node().Size() / simkit.CellBytes)
	q := &request{line: l, op: ops[l.rng.IntN(len(ops))]}
	if cells > 0 {
		q.first = l.rng.IntN(cells)
		if l.rng.IntN(2) == 0 {
			q.first %= 32 // where others are
		}
	}
	q.n = 1 + l.rng.IntN(20)
	if h, ok := pick(l.rng, l.haunts); ok && l.made < haunting {
		q.first = h.first + l.rng.IntN(h.n+1)
		q.n = 1 + l.rng.IntN(h.n+1)
	}
	if l.w.Now() < l.w.zeroing && q.op != "read" {
		q.op, q.n = "zero", 1+l.rng.IntN(8)
	}
	if l.rng.IntN(20) > 0 {
		q.n = min(q.n, max(cells-q.first, 0))
	}
	l.made++
	return q
}

func (q *request) reach() blockcore.Range {
	if q.op == "flush" {
		return blockcore.Range{}
	}
	return blockcore.Range{Offset: int64(q.first) * simkit.CellBytes, Length: int64(q.n) * simkit.CellBytes}
}

func (q *request) changes() bool { return q.op != "read" && q.op != "flush" }

// perform makes the request. It returns false where the Root has moved away.
func (q *request) perform(t *blockcore.Task) bool {
	w, o := q.w, q.owner
	k := &q.ticket
	k.Op, k.Range, k.Limited = q.op, q.reach(), o.limited
	k.Direction = blockcore.ThrottleWrite
	if q.op == "read" {
		k.Direction = blockcore.ThrottleRead
	}
	k.Changes, k.Orphaned, k.Client = q.changes(), q.gone, q.client
	if o.root.Still() {
		w.Count("held")
	}
	q.arrive()
	if !o.root.Begin(t, k) {
		q.want(true)
		q.again = q
		return false
	}
	q.admitted()
	if q.cut > 0 {
		q.dropped()
	} else {
		q.execute(t)
	}
	if s := w.ownerCoveredBy(o); s != nil {
		w.Fail("root %s: request %d ends inside of the settled section %s", o.name, q.number, s.name)
	}
	q.end()
	o.root.End(t, k)
	return true
}

// execute does it, in the model as well.
func (q *request) execute(t *blockcore.Task) {
	w, o := q.w, q.owner
	if q.rng.IntN(2) == 0 {
		t.Yield()
	}
	q.volume = nil
	if d := storeOf(o.root.Node().Driver()); d != nil {
		q.volume = d.volume
	}
	q.tag = w.newTag()
	w.requests++
	w.Log("%s: %d %s [%d, +%d) tag %#x", q.client.name, q.number, q.op, q.first, q.n, q.tag)
	q.overtake()
	q.err = q.io(t)
	w.Log("%s: %d done: %v", q.client.name, q.number, q.err)
	q.judge(q.err)
}

// admitted checks when a request is let in.
func (q *request) admitted() {
	o := q.owner
	q.begun = true
	if s := q.w.ownerCoveredBy(o); s != nil {
		q.w.Fail("root %s: request %d is admitted inside of the settled section %s", o.name, q.number, s.name)
	}
	if q.ticket.Limited || q.mayWait { // it may have waited for its turn besides
		return
	}
	if q.number < o.admitted {
		q.w.Fail("root %s: request %d is admitted behind request %d", o.name, q.number, o.admitted)
	}
	o.admitted = q.number
}

func (q *request) inside() bool { return q.volume == nil || q.first+q.n <= len(q.volume.cells) }

// judge checks a result: what should work does, but for injected errors.
func (q *request) judge(err error) {
	expected := error(nil)
	switch {
	case q.changes() && q.root.Edge().Permissions()&blockcore.PermWrite == 0:
		expected = syscall.EPERM
	case q.op != "flush" && !q.inside() && (q.op == "read" || q.op == "discard"):
		expected = syscall.EINVAL
	case q.op != "flush" && !q.inside():
		expected = syscall.ENOSPC
	case errors.Is(err, errInjected):
		return
	case errors.Is(err, blockcore.ErrCancelled) && q.unwanted:
		q.w.Count("ended early")
		return
	}
	if !errors.Is(err, expected) {
		q.w.Fail("%s: %s of %v: %v instead of %v", q.client.name, q.op, q.reach(), err, expected)
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
		q.note = note
		q.comesLate(q.late...)
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
			q.w.Fail("%s reads: %v", q.client.name, err)
			return nil
		}
	}
	return nil
}
