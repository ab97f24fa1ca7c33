package nbd

import (
	"sync"
	"sync/atomic"
	"time"

	"nbd-dataplane/blockcore"
)

// Conn is a client in the transmission phase. Its socket lives on the AioContext of its export.
//
//	socket -> slab -> parse -> request (a Task) -> Root -> ... -> reply -> outbox -> socket
//
// It owns what it has received: nothing but its own parser ever takes bytes away. It ends
// when its input has ended, nothing is in flight and the outbox is empty or useless.
//
// Analogous to QEMU's NBDClient.
type Conn struct {
	// Immutable.
	id     uint64
	server *Server
	fd     int
	pump   *pump // nil in clear
	peer   *Peer
	agreed negotiated
	style  replyStyle
	limits Limits
	began  time.Time

	// Owned by the context.
	export     *Export               // changes while it is on no loop
	ctx        *blockcore.AioContext // the export's
	lane       *lane                 // of that context
	watcher    *blockcore.Watcher    // nil before start, and between two contexts
	between    bool                  // has left one context and not come to the other one yet
	in         *slab                 // what is being received into; nil while there is nothing
	welcome    []byte                // what the client is told first
	begin, end int                   // in.memory[begin:end] is received and not parsed
	large      *request              // a WRITE whose payload is being received into a buffer of its own
	skipped    *request              // a refused WRITE whose payload is being thrown away
	skip       uint64                // bytes of it that are still to come
	emptied    bool                  // the last reception has left nothing in the socket
	answering  bool                  // the client has sent one request and nothing behind it: nothing comes before he is answered
	blocked    bool                  // a request waits for room, nothing is received
	ended      bool                  // there will be no more input
	orphaned   bool                  // nobody waits for replies: see orphan
	broken     bool                  // the socket takes nothing any more
	leaving    bool                  // the replies are out, our direction is shut, what comes is dropped
	closed     bool
	cause      Cause
	err        error
	inFlight   int   // requests parsed and not finished
	bytes      int64 // held for requests, until their replies have left
	reserved   int64 // of the shared budgets, at least bytes
	out        outbox
	linger     *blockcore.Timer
	retry      *blockcore.Timer // asks for room again; nil when nothing shared is waited for
	progress   time.Duration    // when the client last took or gave something that holds memory, by the context's clock
	stats      connStats

	// Guarded by mu.
	mu       sync.Mutex
	fdClosed bool // fd may be somebody else's

	// Safe from anywhere.
	evicted atomic.Uint32 // the Cause for which the client was cut off by force: nothing more begins; 0 = it was not
}

// connStats is what is told of a connection at its end.
type connStats struct{ requests, failed, read, written uint64 }

// start takes up the transmission phase. Only here is the client told that it has the export: it cannot come back over another connection that begins before this one. On
// the loop.
func (c *Conn) start() {
	c.ctx, c.lane = c.export.ctx.Load(), c.export.lane
	c.export.findOrphans() // before it asks for anything
	c.watcher = c.ctx.Watch(c.fd, c)
	if len(c.welcome) > 0 {
		copy(c.header(len(c.welcome)), c.welcome)
		c.welcome = nil
	}
	c.export.lookLater()
	if c.ended { // stopped before it began
		c.maybeClose()
		return
	}
	if c.export.parked {
		c.blocked = true
		return
	}
	c.watcher.Heat()
}

// ReadyIn receives and parses, at most one burst of requests a call. It implements blockcore.Handler.
func (c *Conn) ReadyIn() bool {
	if why, cut := c.evictedFor(); cut && !c.broken {
		c.abort(why)
		return true
	}
	if c.leaving {
		return c.dropInput()
	}
	worked := c.parse()
	switch {
	case worked || c.ended || c.blocked:
	case c.answering:
		c.answering = false
		c.putSlab()
	case c.receive():
		worked = true
		before := c.stats.requests
		c.parse()
		c.answering = !c.ctx.TellsOnce() && c.alone(before)
	}
	if c.ended || c.blocked {
		c.watcher.Cool()
	} else {
		c.watcher.Heat()
	}
	c.maybeClose()
	return worked
}

// ReadyOut sends what did not fit before. It implements blockcore.Handler.
func (c *Conn) ReadyOut() {
	c.out.blocked = false
	c.TurnEnd()
}

// TurnEnd sends the replies of the turn. It implements blockcore.TurnEnder.
func (c *Conn) TurnEnd() {
	c.flush()
	c.maybeClose()
}

// roomAgain lets a request that waited for room try once more. On the loop.
func (c *Conn) roomAgain() {
	if !c.blocked || c.closed || c.export.parked {
		return
	}
	c.blocked = false
	c.watcher.Heat()
}

// endInput ends the reception for good; what is in flight goes on. A write whose payload is not
// complete is dropped, as if it had never come.
func (c *Conn) endInput(cause Cause, err error) {
	if c.ended {
		return
	}
	c.ended, c.cause, c.err = true, cause, err
	c.orphan()
	if c.large != nil {
		c.dropLarge()
	}
	if c.skipped != nil {
		c.lane.putRequest(c.skipped)
		c.skipped = nil
	}
	if c.in != nil {
		c.lane.drop(c.in)
		c.in, c.begin, c.end = nil, 0, 0
	}
}

// stop ends the connection after what is in flight. On the loop.
func (c *Conn) stop() {
	c.endInput(CauseStopped, nil)
	if c.watcher != nil {
		c.watcher.Cool()
		c.maybeClose()
	}
}

// lose notes that the socket takes nothing any more.
func (c *Conn) lose(err error) {
	if c.broken {
		return
	}
	c.broken = true
	c.out.discard(c)
	c.endInput(CauseReset, err)
}

// maybeClose closes the connection when there is nothing left to wait for.
func (c *Conn) maybeClose() {
	if !c.ended || c.inFlight > 0 || c.closed {
		return
	}
	if !c.out.empty() && !c.broken {
		if c.linger == nil {
			c.linger = c.ctx.After(c.limits.Linger, c.lingered)
		}
		return
	}
	if !c.farewell() {
		c.close()
	}
}

// lingered gives up a client that does not take its last replies.
func (c *Conn) lingered() { c.abort(CauseLinger) }

func (c *Conn) close() {
	c.closed = true
	for _, timer := range []*blockcore.Timer{c.linger, c.retry} {
		if timer != nil {
			timer.Stop()
		}
	}
	c.watcher.Close()
	if c.pump != nil {
		c.pump.finish(c.grace())
	}
	c.closeSocket()
	c.out.release(c)
	c.release(c.reserved)
	c.export.remove(c)
	c.server.connectionClosed(c)
}

// grace is how long a client behind a pump may take over its last replies, and then over closing its end.
func (c *Conn) grace() (linger, farewell time.Duration) {
	switch {
	case c.broken:
		return 0, 0
	case c.owesFarewell():
		return c.limits.Linger, c.limits.Farewell
	}
	return c.limits.Linger, 0
}

// room reserves n bytes for a request, or has roomAgain called when it is worth trying again.
//
// INVARIANT: clients that sit on what they have reserved cannot starve the others: a request that is alone on its
// connection goes beyond the bounds, or waits for those who stall to be cut off.
func (c *Conn) room(n int64) bool {
	alone := c.bytes == 0
	if !alone && c.bytes+n > c.limits.ConnectionBytes {
		return false
	}
	if need := c.bytes + n - c.reserved; need > 0 && !c.reserve(need, alone) {
		return false
	}
	c.bytes += n
	return true
}

// reserveStep is what a connection takes from the shared budgets at once, in bytes, so that it comes to them
// seldom.
const reserveStep = 1 << 20

// reserve takes need bytes from the shared budgets, in whole steps as long as there is plenty: where it is scarce, a thousand short requests must
// not count as a thousand steps.
func (c *Conn) reserve(need int64, alone bool) bool {
	steps := (need + reserveStep - 1) &^ (reserveStep - 1)
	if c.export.budget.plenty(steps) && c.server.budget.plenty(steps) {
		need = steps
	}
	if !c.export.budget.take(need, alone) {
		c.awaitShared(c.export.budget, need, alone)
		return false
	}
	if !c.server.budget.take(need, alone) {
		c.export.budget.give(need)
		c.awaitShared(c.server.budget, need, alone)
		return false
	}
	c.reserved += need
	return true
}

// unhold gives back the n bytes of a request whose reply has left.
//
// INVARIANT: a connection that rests holds no part of the shared budgets: a thousand of them would leave nothing for the others. The last reply is
// the time for it: from a slow disk it comes long after the socket has been found empty.
func (c *Conn) unhold(n int64) {
	c.bytes -= n
	if c.bytes == 0 {
		c.release(c.reserved)
	}
	c.unblock()
}

// release gives n bytes back to the shared budgets.
func (c *Conn) release(n int64) {
	if n == 0 {
		return
	}
	c.reserved -= n
	c.export.budget.give(n)
	c.server.budget.give(n)
}

// unblock resumes a reception that waited for this connection's own requests.
func (c *Conn) unblock() {
	if c.blocked {
		c.roomAgain()
	}
}
