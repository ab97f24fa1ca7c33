package nbd

import "nbd-dataplane/blockcore"

// An Export takes part in drains as the owner of its Root. It stops at the source: while a section lasts nothing is parsed,
// and what was received stays where it is, whole or not. So no byte is lost, a client that has sent half of a request delays nobody, and there is
// nothing to hold back.
var (
	_ blockcore.Owner       = (*Export)(nil)
	_ blockcore.Mover       = (*Export)(nil)
	_ blockcore.SizeWatcher = (*Export)(nil)
)

// Quiesce has requests that arrive from now on stay unparsed. It implements blockcore.Owner.
func (e *Export) Quiesce() {
	e.still = true
	e.lookSooner()
}

// Busy is false: all that the export does is requests, which its Root counts. It implements blockcore.Owner.
func (e *Export) Busy() bool { return false }

// Resume goes on with what has arrived: at once with a burst of each connection, and then turn by turn. So sections that follow each other without a
// pause let every client get on. Those that came first go first, and those that are known to have hung up with all that they have sent: what a client had asked for when it lost
// its connection is not done after what it asks for on the next one. It implements blockcore.Owner.
func (e *Export) Resume() {
	e.still = false
	if e.isBetween() {
		return // they go on when they are here
	}
	for _, c := range e.connections() {
		if c.blocked && !c.closed {
			c.blocked = false
			c.ReadyIn()
			if c.orphaned {
				c.readOut()
			}
		}
	}
}

// MayMove refuses where the export was bound to its context. It implements blockcore.Mover.
func (e *Export) MayMove(to *blockcore.AioContext) error {
	if e.options.FixedContext {
		return &FixedContextError{e.Name(), to.Name()}
	}
	return nil
}

// FixedContextError says that an export stays where it is.
type FixedContextError struct{ Export, To string }

func (f *FixedContextError) Error() string {
	return "export " + shown(f.Export) + " has a fixed iothread and cannot go to " + f.To
}

// Detach takes the connections off the old loop. Their sockets, what was received and what is still to be sent stay with
// them. From here to Attach nothing touches a connection: what is posted to the export waits. It implements blockcore.Mover.
func (e *Export) Detach(to *blockcore.AioContext) {
	e.setOff()
	e.lookNoMore()
	old := e.lane
	e.lane = e.server.laneOf(to)
	for _, c := range e.connections() {
		if c.watcher != nil {
			c.leaveLoop(e.lane)
		}
	}
	if e.server.leaveLane(old) {
		old.release()
	}
	e.ctx.Store(to)
}

// Attach takes them up on the new loop, or on the old one again when that could not be entered. It implements blockcore.Mover.
func (e *Export) Attach(ctx *blockcore.AioContext) {
	if e.ctx.Load() != ctx {
		e.turnBack(ctx)
	}
	for _, c := range e.connections() {
		if c.between {
			c.enterLoop(ctx)
		}
	}
	e.land()
}

// turnBack leaves the lane of a loop that was closed when the export was on its way there.
func (e *Export) turnBack(ctx *blockcore.AioContext) {
	e.server.leaveLane(e.lane)
	e.lane = e.server.laneOf(ctx)
	for _, c := range e.connections() {
		if c.between {
			c.lane = e.lane
		}
	}
	e.ctx.Store(ctx)
}

// leaveLoop takes c off its loop: nothing is in flight and the export is still. On that loop.
func (c *Conn) leaveLoop(to *lane) {
	c.between = true
	c.watcher.Close()
	c.watcher = nil
	c.out.queued = c.ctx.NotAtTurnEnd(c)
	for _, timer := range []*blockcore.Timer{c.linger, c.retry} {
		if timer != nil {
			timer.Stop()
		}
	}
	if c.lane.last == c {
		c.lane.last = nil
	}
	c.lane = to
}

// enterLoop takes c up on another loop.
func (c *Conn) enterLoop(ctx *blockcore.AioContext) {
	c.between = false
	c.ctx = ctx
	c.watcher = ctx.Watch(c.fd, c)
	switch {
	case c.linger == nil:
	case c.leaving:
		c.linger = ctx.After(c.linger.Left(), c.close)
	default:
		c.linger = ctx.After(c.linger.Left(), c.lingered)
	}
	if c.retry != nil {
		c.retry = nil
		c.roomAgain()
	}
	if c.closed {
		return
	}
	if c.out.blocked {
		c.watcher.ArmOut()
	}
	if c.out.queued || c.ended {
		ctx.AtTurnEnd(c)
	}
	if c.leaving || !c.ended && !c.blocked {
		c.watcher.Heat()
	}
}

// Resized remembers what clients see from now on. Those that are connected may use a larger size at once, and get errors for what is
// past a smaller one. It implements blockcore.SizeWatcher.
func (e *Export) Resized(sizeBytes int64) {
	e.server.offers.resize(e.Name(), e.size())
	e.server.emit(ExportResized{Export: e.Name(), Size: sizeBytes})
}
