package nfs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// enter puts the file into a graph.
func (c *simThread) enter() bool {
	w := c.w
	var err error
	w.node, err = w.graph.AddNode(blockcore.NodeOptions{Name: "disk", Context: w.Loops[0].AioContext, Driver: w.file})
	c.pause(0)
	if err == nil {
		w.root, err = w.graph.NewRoot(w.node, blockcore.RootOptions{Name: "client", Writable: true, Movable: true, Permissions: blockcore.PermResize})
		c.pause(0)
	}
	if err != nil {
		w.Fail("open: %v", err)
	}
	return err == nil
}

// main has clients use the file, changes things meanwhile, and takes it down.
func (c *simThread) main() {
	w := c.w
	if !c.openLocked() {
		return
	}
	w.opened()
	if !c.enter() {
		return
	}
	w.clients = 1 + w.rng.IntN(6)
	for i := range w.clients {
		one := &simClient{w: w, name: i}
		w.all = append(w.all, one)
		one.start()
	}
	busy := w.rng.IntN(2) == 0 || w.opening != nil && w.reopens
	for w.clients > 0 && !w.Failed() {
		c.pause(w.someTime())
		if busy {
			c.change()
		}
	}
	c.takeDown()
	w.Ended = true
}

func (c *simThread) pause(rest time.Duration) { c.Park(context.Background(), rest) }

// change does one thing of the control plane.
func (c *simThread) change() {
	w := c.w
	if w.reopens && (w.visitor.excludes() || w.rng.IntN(2) == 0) {
		c.reopen()
		return
	}
	switch n := w.rng.IntN(10); {
	case n < 4:
		c.drain()
	case n < 6:
		c.move()
	case n < 8:
		if !w.readOnly {
			c.resize()
		}
	case w.timeout > 0:
		d := w.someTimeout()
		w.Log("timeout %v", d)
		w.file.Change(Changes{Timeout: d})
	}
}

// section drains the node and calls fn, unless the deadline passes first.
func (c *simThread) section(why string, most time.Duration, fn func(d *blockcore.Drained)) {
	w := c.w
	w.Log("drain for %s, %v", why, most)
	d, err := w.graph.Drain(context.Background(), blockcore.DrainOptions{Why: why, Nodes: []*blockcore.Node{w.node}, Max: most})
	if err != nil {
		c.pause(0)
		w.Log("drain: %v", err)
		w.Count("drain failed")
		var gaveUp *blockcore.DrainError
		if most >= simStuckMax || !errors.As(err, &gaveUp) && !errors.Is(err, context.DeadlineExceeded) {
			w.Fail("drain for %s, %v: %v", why, most, err)
		}
		return
	}
	c.pause(0)
	w.Log("drained")
	w.Count("drain settled")
	w.drained = true
	w.checkQuiet()
	fn(d)
	w.checkQuiet()
	w.drained = false
	w.Log("the section ends")
	d.End()
	c.pause(0)
}

func (c *simThread) drain() {
	most := simStuckMax
	if c.w.rng.IntN(2) == 0 {
		most = 1 + c.w.someTime()
	}
	c.section("look", most, func(*blockcore.Drained) { c.pause(c.w.someTime()) })
}

// checkQuiet looks for what goes on in a section.
func (w *simWorld) checkQuiet() {
	f := w.file
	if f.limbos > 0 {
		w.Count("drained with calls in limbo")
		return
	}
	if w.node.InFlight() > 0 || f.committing || f.reserved != 0 || f.largeReads != 0 || f.extending {
		w.Fail("in a section: %d requests in flight, committing %t, %d bytes reserved, %d large reads", w.node.InFlight(), f.committing, f.reserved, f.largeReads)
	}
	for i, k := range f.conns {
		if k.outstanding != 0 || len(k.out) != k.first {
			w.Fail("in a section: connection %d has %d calls", i, k.outstanding)
		}
	}
	for _, k := range f.calls.all {
		if k.state != callFree || k.timer != nil {
			w.Fail("in a section: %v is in state %d", k.proc, k.state)
		}
	}
	if len(f.calls.free) != len(f.calls.all) {
		w.Fail("%d of %d calls are free", len(f.calls.free), len(f.calls.all))
	}
}

// move takes the node to the other loop.
func (c *simThread) move() {
	w := c.w
	to := w.Loops[0].AioContext
	if w.node.Context() == to {
		to = w.Loops[1].AioContext
	}
	w.Log("move to %s", to.Name())
	err := w.graph.Move(context.Background(), w.node, to)
	c.pause(0)
	if err != nil {
		w.Log("move: %v", err)
		return
	}
	w.Count("moved")
}

// resize changes the length.
func (c *simThread) resize() {
	w := c.w
	cells := 8 * (1 + w.rng.IntN(200))
	c.section("resize", simStuckMax, func(d *blockcore.Drained) {
		begin := w.Tick()
		w.model.grow(cells)
		zero := w.model.cut(cells, begin)
		err := w.graph.Update(context.Background(), "resize", func(tx *blockcore.Tx) error {
			return tx.Resize(d, w.node, int64(cells)*simkit.CellBytes)
		})
		c.pause(0)
		w.Log("resized to %d: %v", cells, err)
		if err != nil {
			var errno syscall.Errno
			timedOut := errors.Is(err, syscall.ETIMEDOUT) && w.timeout > 0
			if !errors.As(err, &errno) || !timedOut && !w.mayFail(errno, begin) && !(errno == syscall.EIO && w.restarts >= runsMost) {
				w.Fail("resize has failed without a cause: %v", err)
			}
			w.doubtful, w.cutLate, zero.End = true, cells, w.Tick() // it may be shorter and nobody knows
			return
		}
		w.Count("resized")
		zero.End, zero.Optional, zero.Durable = w.Tick(), false, true
	})
}

// takeDown ends the clients, looks at everything and closes the file, sometimes while the server is away.
func (c *simThread) takeDown() {
	w := c.w
	well := !w.Failed() && w.rng.IntN(4) > 0
	if well {
		w.heal()
		if w.rng.IntN(2) == 0 {
			c.reopenBack()
		}
		if c.lastLookAtLocks() {
			c.lastLook()
		}
	}
	w.closing = true
	w.root.Close()
	c.pause(0)
	if w.node.InFlight() > 0 {
		w.heal() // a COMMIT ahead of need: a removal waits for it as for any request
	}
	for w.node.InFlight() > 0 && !w.Failed() {
		c.pause(time.Second)
	}
	begin, since, restarts := w.Tick(), w.Now(), w.restarts
	w.Log("remove the node")
	err := w.graph.RemoveNodes()
	c.pause(0)
	w.Log("removed: %v", err)
	var errno syscall.Errno
	switch {
	case err == nil:
		w.flushed(begin)
	case !errors.As(err, &errno) || errno != syscall.ETIMEDOUT && !w.mayFail(errno, begin) && !(errno == syscall.EIO && w.restarts-restarts >= runsMost):
		w.Fail("the removal has failed without a cause: %v; %s", err, w.describe())
	default:
		w.Count("removed and not flushed")
	}
	if took := w.Now() - since; took > 5*time.Minute {
		w.Fail("the removal took %v", took)
	}
	f := w.file
	if n := f.held.pages.count; n > 0 || f.held.first != nil || f.held.stale != 0 {
		w.Fail("%d pages are held by a file that is closed", n)
	}
	w.checkQuiet()
	if well {
		w.checkUnlocked()
	}
	w.settleLinks()
	if len(w.links) > 0 {
		w.Fail("%d connections of a file that is closed are open", len(w.links))
	}
}

// simRecoveryMax is how long requests may fail after the server has become well: until a connection that is silent has been given up.
const simRecoveryMax = 2 * silenceMost

// lastLook reads and flushes everything, with a server that is well.
func (c *simThread) lastLook() {
	w := c.w
	last := &simClient{w: w, name: -1}
	for until := w.Now() + simRecoveryMax; w.file.limbos > 0 && w.Now() < until; { // what comes of it is held
		c.pause(time.Second)
		w.Progress()
	}
	for _, op := range []string{"read", "flush", "read"} {
		q := &simRequest{simClient: last, op: op, n: int(w.file.Size()) / simkit.CellBytes}
		var err error
		done := w.root.Context().Do(func(t *blockcore.Task) error {
			for until := w.Now() + simRecoveryMax; w.Now() < until; t.Sleep(time.Second) { // what is on its way may still fail
				if err = q.attempt(t); err == nil {
					break
				}
			}
			return nil
		})
		c.pause(0)
		if done != nil || err != nil {
			w.Fail("the last %s: %v", op, errors.Join(done, err))
		}
	}
	for until := w.Now() + simRecoveryMax; w.sick && w.Now() < until; { // while what has timed out is not forgotten
		c.pause(time.Second)
		w.Progress()
	}
	if h := w.file.Health(); !h.OK || w.sick {
		w.Fail("the server is well and said not to be: %v", h)
	}
	if f := w.file; f.held.pages.count != 0 || f.unsettled {
		w.Fail("after a flush %d pages are held", f.held.pages.count)
	}
}

// attempt is perform, with the result.
func (q *simRequest) attempt(t *blockcore.Task) error {
	w := q.w
	q.ticket.Op, q.ticket.Range = q.op, q.reach()
	if !w.root.Begin(t, &q.ticket) {
		return errors.New("it has moved")
	}
	defer w.root.End(t, &q.ticket)
	q.begin, q.since, q.restarts = w.Tick(), w.Now(), w.restarts
	err := q.io(t)
	w.Log("client %d: %s done: %v", q.name, q.op, err)
	w.Progress()
	q.judge(err)
	return err
}
