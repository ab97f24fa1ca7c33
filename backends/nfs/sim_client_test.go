package nfs

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// simClient makes requests, one after the other: several Tasks do so at once.
type simClient struct {
	w      *simWorld
	name   int
	ticket blockcore.Ticket
	thrown bool // the request under way was cancelled
}

func (c *simClient) String() string { return fmt.Sprintf("client %d", c.name) }

// start begins it on the loop of the Root.
func (c *simClient) start() {
	ctx := c.w.root.Context()
	if !ctx.Post(func() { ctx.Spawn(c) }) {
		c.w.Fail("the loop is closed")
	}
}

// Run makes requests until there were enough. It implements blockcore.Body.
func (c *simClient) Run(t *blockcore.Task) {
	w := c.w
	for {
		if w.root.Context() != t.Context() {
			c.start()
			return
		}
		if w.closing || w.asked >= w.cfg.requests {
			w.clients--
			return
		}
		c.draw().perform(t)
		w.Progress()
		if w.cancels && w.rng.IntN(10) == 0 {
			one := w.all[w.rng.IntN(len(w.all))]
			w.Log("%v is thrown out", one)
			one.thrown = true
			w.root.Cancel(one)
		}
		switch n := w.rng.IntN(10); {
		case n < 4:
		case n < 8:
			t.Yield()
		default:
			t.Sleep(time.Duration(w.rng.Int64N(int64(max(w.slow, time.Millisecond)))))
		}
	}
}

// simRequest is one request and what the model says about it.
type simRequest struct {
	*simClient
	op       string
	first, n int // cells
	begin    int64
	since    time.Duration
	restarts int
}

var simOps = []string{
	"read", "read", "read", "read", "write", "write", "write", "write", "write", "write", "write fua", "zero", "zero fua", "flush", "flush", "extend",
}

// draw thinks of a request.
func (c *simClient) draw() *simRequest {
	rng := c.w.rng
	q := &simRequest{simClient: c, op: oneOf(rng, simOps...)}
	cells := int(c.w.file.Size()) / simkit.CellBytes
	if cells > 0 {
		q.first = rng.IntN(cells)
		if rng.IntN(2) == 0 {
			q.first %= 128 // where others are
		}
		if rng.IntN(4) == 0 {
			q.first &^= 63
		}
		if c.w.hot {
			q.first %= 128
		}
		if late := c.w.cutLate; 0 < late && late < cells && rng.IntN(2) == 0 {
			q.first = late + rng.IntN(cells-late)
		}
		q.n = min(oneOf(rng, 1+rng.IntN(8), 1+rng.IntN(128), 1+rng.IntN(128), 64, 64, 256, oneOf(rng, 128, 1024)), cells-q.first)
	}
	if c.w.hot {
		q.n = min(q.n, oneOf(rng, 1+rng.IntN(8), 64))
	}
	if q.n == 0 || c.w.hot && rng.IntN(8) == 0 {
		q.op = "flush"
	}
	if c.w.readOnly && q.changes() {
		q.op = "read"
	}
	return q
}

// changes reports whether it is one that a disk which is read-only does not take.
func (q *simRequest) changes() bool { return q.op != "read" && q.op != "flush" }

func (q *simRequest) reach() blockcore.Range {
	return blockcore.Range{Offset: int64(q.first) * simkit.CellBytes, Length: int64(q.n) * simkit.CellBytes}
}

// perform makes the request, unless the Root has moved away.
func (q *simRequest) perform(t *blockcore.Task) {
	w := q.w
	q.ticket.Op, q.ticket.Range, q.ticket.Client = q.op, q.reach(), q.simClient
	q.thrown = false
	if !w.root.Begin(t, &q.ticket) {
		return
	}
	defer w.root.End(t, &q.ticket)
	if w.drained {
		w.Fail("a request is let in during a section")
	}
	if q.op != "flush" && q.reach().End() > w.file.Size() {
		return // it was resized meanwhile
	}
	if w.readOnly && q.changes() {
		return // it was reopened meanwhile
	}
	w.asked++
	q.begin, q.since, q.restarts = w.Tick(), w.Now(), w.restarts
	w.Log("client %d: %s [%d, +%d)", q.name, q.op, q.first, q.n)
	err := q.io(t)
	w.Tick()
	w.Log("client %d: %s [%d, +%d) done: %v", q.name, q.op, q.first, q.n, err)
	q.judge(err)
	if w.drained {
		w.Fail("a request ends during a section")
	}
}

// simTimeoutsMax is how many timeouts a request may take: each of its calls one, and those of others that it waits for.
const simTimeoutsMax = 100

// judge checks a result: nothing fails without a cause.
func (q *simRequest) judge(err error) {
	w := q.w
	if took := w.Now() - q.since; w.timeout > 0 && took > simTimeoutsMax*w.longest {
		w.Fail("%s of %v has taken %v; the timeout is %v", q.op, q.reach(), took, w.longest)
	}
	errno := syscall.Errno(0)
	switch {
	case err == nil:
		return
	case !errors.As(err, &errno):
		w.Fail("%s of %v: an error without a number: %v", q.op, q.reach(), err)
	case errno == syscall.ECANCELED && q.thrown:
		w.Count("cancelled")
	case errno == syscall.ETIMEDOUT:
		w.Count("timed out")
		if w.timeout == 0 || w.Now()-q.since < w.timeout {
			w.Fail("%s of %v has timed out after %v; the timeout is %v", q.op, q.reach(), w.Now()-q.since, w.timeout)
		}
	case w.mayFail(errno, q.begin):
		w.Count("failed")
	case errno == syscall.EIO && w.restarts-q.restarts >= runsMost:
		w.Count("given up")
	case errno == syscall.EIO && w.doubtful && q.op == "read":
		w.Count("cut off")
	default:
		w.Fail("%s of %v has failed without a cause: %v", q.op, q.reach(), err)
	}
}

func (q *simRequest) io(t *blockcore.Task) error {
	w, e := q.w, q.w.root.Edge()
	switch q.op {
	case "read":
		return q.read(t)
	case "flush":
		err := e.Flush(t)
		if err == nil {
			w.flushed(q.begin)
		}
		return err
	case "extend":
		if w.file.Size() > 1<<20 {
			return nil
		}
		err := e.Extend(t, w.file.Size()+simkit.CellBytes*int64(1+w.rng.IntN(128)))
		w.model.grow(int(w.file.Size()) / simkit.CellBytes)
		return err
	}
	tag := uint64(0)
	if q.op == "write" || q.op == "write fua" {
		w.tags++
		tag = w.tags
	}
	note := w.model.begin(tag, q.first, q.n, q.begin)
	err := q.change(t, tag)
	note.Optional, note.End = err != nil, w.Tick()
	if err == nil && (q.op == "write fua" || q.op == "zero fua" || w.file.through) {
		note.Durable = true
		w.checkStable("after " + q.op)
	}
	return err
}

func (q *simRequest) change(t *blockcore.Task, tag uint64) error {
	e := q.w.root.Edge()
	switch q.op {
	case "zero":
		return e.WriteZeroes(t, q.reach(), blockcore.ZeroMayUnmap)
	case "zero fua":
		return e.WriteZeroes(t, q.reach(), blockcore.ZeroFUA)
	}
	p := t.Buffers().Get(q.n * simkit.CellBytes)
	defer t.Buffers().Put(p)
	simkit.Fill(p, tag)
	flags := blockcore.WriteFlags(0)
	if q.op == "write fua" {
		flags = blockcore.WriteFUA
	}
	err := e.Write(t, p, q.reach().Offset, flags)
	simkit.Fill(p, 1<<63|q.w.tags) // nobody may look at it any more
	return err
}

func (q *simRequest) read(t *blockcore.Task) error {
	w := q.w
	p := t.Buffers().Get(q.n * simkit.CellBytes)
	defer t.Buffers().Put(p)
	losses := w.model.losses
	simkit.Fill(p, 1<<62|q.w.tags)
	if err := w.root.Edge().Read(t, p, q.reach().Offset); err != nil {
		return err
	}
	now := w.Tick()
	for i := range q.n {
		tag, err := simkit.Tag(p[i*simkit.CellBytes : (i+1)*simkit.CellBytes])
		if err == nil {
			err = w.model.read(q.first+i, tag, q.begin, losses, now)
		}
		if err != nil {
			w.Fail("client %d reads what is not there: %v", q.name, err)
			return nil
		}
	}
	return nil
}

// flushed looks at what a flush that began at since has promised.
func (w *simWorld) flushed(since int64) {
	if w.file.noFlush {
		return
	}
	w.model.flushed(since)
	w.checkStable("after a flush")
}

// checkStable compares what is on stable storage with what was promised.
func (w *simWorld) checkStable(when string) {
	data := w.server.Stable(simFile)
	for i := range w.model.cells {
		tag, err := uint64(0), error(nil)
		if end := (i + 1) * simkit.CellBytes; end <= len(data) {
			tag, err = simkit.Tag(data[end-simkit.CellBytes : end])
		}
		if err == nil {
			err = w.model.stable(i, tag)
		}
		if err != nil {
			w.Fail("stable storage %s: %v", when, err)
			return
		}
	}
}
