package nfs

import (
	"fmt"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

const (
	// slotBits: a transaction id is a count and, in its lowest bits, the place of the call in the table.
	slotBits = 8
	// callsMax bounds the calls in flight to one server: far more than a disk array has use for, and small enough to look through.
	callsMax = 1 << slotBits
	// headBytes is room for a call with the longest handle and credential, without its data.
	headBytes = 640
)

// callState says where a call is.
type callState uint8

const (
	callFree    callState = iota
	callQueued            // waits to be sent, or is being sent
	callSent              // waits for its reply
	callResting           // the server has asked for time
)

// call is one call from the moment when it is made until its reply has been read, over as many connections as that takes. Owned by the context.
type call struct {
	slot  uint32
	state callState
	xid   uint32
	order uint64 // of calls, as they were made
	conn  *conn
	group *group

	proc     wire.Proc
	head     []byte // the record, up to the data of a WRITE
	data     []byte // of a WRITE, or where that of a READ goes; what is done falls off its beginning
	off      int64
	how      wire.Stable
	size     int64         // of SETATTR
	deadline time.Duration // 0 = none
	since    time.Duration
	asked    time.Duration // when it was last made, or its connection lost

	tried bool             // the server may have got it over a connection that was lost
	rest  time.Duration    // how long it rested last
	timer *blockcore.Timer // of its rest
	busy  time.Duration    // since when the server has had no time for it; 0 = it has
}

// group is what one Task waits for: the calls of a request. Owned by the context.
type group struct {
	task    *blockcore.Task // nil = none does: it is in limbo
	pending int
	err     error // the first one
	waiter  blockcore.WaitQueue

	short      int64           // where the file ended before a READ did; -1 = nowhere
	unstable   bool            // something was written that is not on stable storage yet
	repeated   bool            // a call was made again, and may have been answered before
	written    bool            // verifier is one
	mixed      bool            // WRITEs were answered with different verifiers
	verifier   uint64          // of WRITE and COMMIT
	attributes wire.Attributes // of GETATTR

	// What the calls need as long as the server may execute them.
	lock    *blockcore.RangeLock // of the range that they write to; nil = none
	pages   int64                // that are reserved for what they write
	resizes bool                 // it is SETATTR
	commits bool                 // it is COMMIT, of all that was held up to upTo
	upTo    uint64
	handed  bool // some of the calls are in limbo, and with them all of this

	// Of a group in limbo.
	limbo     bool
	dataBytes int64
}

// callTable is all calls of a file. Owned by the context.
type callTable struct {
	all    []*call // by slot
	free   []*call
	groups []*group
	room   blockcore.WaitQueue // for a free call
	count  uint32              // of transaction ids
	order  uint64
}

// byXID finds the call in flight with that transaction id.
func (x *callTable) byXID(xid uint32) *call {
	slot := int(xid & (callsMax - 1))
	if slot >= len(x.all) || x.all[slot].xid != xid || x.all[slot].state == callFree {
		return nil
	}
	return x.all[slot]
}

// take returns a free call, or nil.
func (x *callTable) take() *call {
	if last := len(x.free) - 1; last >= 0 {
		c := x.free[last]
		x.free = x.free[:last]
		return c
	}
	if len(x.all) == callsMax {
		return nil
	}
	c := &call{slot: uint32(len(x.all)), head: make([]byte, 0, headBytes)}
	x.all = append(x.all, c)
	return c
}

func (x *callTable) give(c *call) {
	c.state, c.conn, c.group, c.data = callFree, nil, nil, nil
	x.free = append(x.free, c)
	x.room.WakeOne()
}

// takeGroup returns one for which t waits.
func (x *callTable) takeGroup(t *blockcore.Task) *group {
	if last := len(x.groups) - 1; last >= 0 {
		g := x.groups[last]
		x.groups = x.groups[:last]
		*g = group{short: -1, task: t}
		return g
	}
	return &group{short: -1, task: t}
}

// give takes back a group that nobody waits for.
func (x *callTable) giveGroup(g *group) { x.groups = append(x.groups, g) }

// nextXID is one that no call in flight has: the slot is in it.
func (x *callTable) nextXID(slot uint32) uint32 {
	x.count++
	return x.count<<slotBits | slot
}

// submit makes a call of g and sends it on its way. It waits only for room in the table. Where g has failed meanwhile, or nobody wants it any more, there is no call.
func (f *File) submit(t *blockcore.Task, g *group, proc wire.Proc, data []byte, off int64, how wire.Stable) {
	if c := f.take(t, g); c != nil {
		c.group, c.proc, c.data, c.off, c.how = g, proc, data, off, how
		f.start(t, c)
	}
}

// take waits for a free call for g; nil = it is not to make any more.
func (f *File) take(t *blockcore.Task, g *group) *call {
	if f.unwanted(t) {
		g.giveUp(blockcore.ErrCancelled)
		return nil
	}
	c := f.calls.take()
	since := time.Duration(0)
	for c == nil {
		if err := f.wait(t, &f.calls.room, &since); err != nil {
			g.giveUp(err)
		}
		if f.unwanted(t) {
			g.giveUp(blockcore.ErrCancelled)
		}
		if g.err != nil {
			f.calls.room.WakeOne() // the place is for somebody else
			return nil
		}
		c = f.calls.take()
	}
	return c
}

func (f *File) start(t *blockcore.Task, c *call) {
	if err := f.refusal(c.proc); err != nil {
		f.refuse(c, err)
		return
	}
	c.since, c.rest, c.busy, c.deadline, c.tried = t.Now(), 0, 0, 0, false
	c.asked = c.since
	if d := f.patience(); d > 0 {
		c.deadline = c.since + d
	}
	f.calls.order++
	c.order = f.calls.order
	c.group.pending++
	f.encode(c)
	f.dispatch(c)
}

// patience is how long a call may take; 0 = for ever. A node that is closed does not wait for a server that may never come back.
func (f *File) patience() time.Duration {
	timeout := f.Timeout()
	by := f.endsBy()
	if by == 0 {
		return timeout
	}
	left := max(by-f.ctx.Now(), watchLeast)
	if timeout > 0 {
		return min(timeout, left)
	}
	return left
}

// endsBy is when the last flush of a node that is being closed has to have ended; 0 = it is not.
func (f *File) endsBy() time.Duration {
	if f.closeBy == 0 && f.node != nil && f.node.Closing() {
		f.closeBy = f.ctx.Now() + closeMax
	}
	return f.closeBy
}

// encode writes the call down, with a new transaction id: for a server that remembers ids it is another call.
func (f *File) encode(c *call) {
	c.xid = f.calls.nextXID(c.slot)
	b := wire.AppendCall(c.head[:0], c.xid, wire.ProgramNFS, uint32(c.proc), f.dialer.cred)
	behind := 0
	switch c.proc {
	case wire.ProcRead:
		b = wire.AppendRead(b, f.handle, uint64(c.off), uint32(len(c.data)))
	case wire.ProcWrite:
		b = wire.AppendWrite(b, f.handle, uint64(c.off), uint32(len(c.data)), c.how)
		behind = len(c.data) + wire.Padding(len(c.data))
	case wire.ProcCommit:
		b = wire.AppendCommit(b, f.handle)
	case wire.ProcSetattr:
		b = wire.AppendSetSize(b, f.handle, uint64(c.size))
	case wire.ProcGetattr:
		b = wire.AppendHandle(b, f.handle)
	}
	wire.FinishCall(b, behind)
	c.head = b
}

// dispatch gives the call to a connection.
func (f *File) dispatch(c *call) {
	best := f.pick()
	c.conn, c.state = best, callQueued
	best.outstanding++
	f.outstanding++
	f.keepWatch()
	best.enqueue(c)
}

// How calls are spread over connections.
const (
	// burstMax is how many calls of a turn go to one connection: they leave in one system call, and a server that reads ahead has something to do.
	burstMax = 8
	// spreadFrom is how many calls each connection has before there is one more, if their number was left to us. Two connections with four calls each were no
	// faster than one with eight, and woke the loop more often.
	spreadFrom = 12
)

// pick returns the connection for the next call: the one that the last went to while the burst lasts, and then the one that has the least to do of those that are
// there. When all have enough, one more is made meanwhile; who has said how many there are gets them as soon as there are as many calls. In an outage all wait for
// the same one.
func (f *File) pick() *conn {
	if last := f.lastConn; last != nil && last.fd >= 0 && last.burst > 0 && last.burst < burstMax {
		return last
	}
	var best, more *conn
	for _, c := range f.conns {
		switch {
		case c.fd < 0:
			if more == nil {
				more = c
			}
		case best == nil || c.outstanding < best.outstanding:
			best = c
		}
	}
	switch {
	case best == nil:
		best = f.conns[0]
	case more == nil:
	case f.spread && best.outstanding > 0:
		best = more
	case best.outstanding >= spreadFrom:
		more.dialSoon()
	}
	f.lastConn = best
	return best
}

// await waits until no call of g is in flight.
func (f *File) await(t *blockcore.Task, g *group) error {
	for g.pending > 0 {
		t.Wait(&g.waiter)
	}
	return g.err
}

// finish ends a call.
func (f *File) finish(c *call, err error) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	g := c.group
	c.conn.release()
	f.calls.give(c)
	if err != nil && g.err == nil {
		g.err = err
	}
	if g.pending--; g.pending == 0 {
		g.waiter.WakeAll()
		if g.limbo {
			f.leaveLimbo(g)
		}
	}
}

// again sends a call once more, as another one.
func (f *File) again(c *call) {
	f.encode(c)
	c.state, c.asked = callQueued, f.ctx.Now()
	c.conn.enqueue(c)
}

// Rests of a call that a server has no time for (NFS3ERR_JUKEBOX): it is fetching the file from tape, or has just been started.
const (
	restLeast = 100 * time.Millisecond
	restMost  = 5 * time.Second
)

// rest sends a call again after a while.
func (f *File) rest(c *call) {
	f.counters.jukebox.Add(1)
	f.lapsed = f.ctx.Now()
	if c.busy == 0 {
		c.busy = f.lapsed
	}
	c.rest = min(max(2*c.rest, restLeast), restMost)
	c.state = callResting
	c.timer = f.ctx.After(c.rest, func() {
		c.timer = nil
		f.again(c)
	})
}

// one makes a single call without data for g and waits for it.
func (f *File) one(t *blockcore.Task, g *group, proc wire.Proc, size int64) error {
	g.resizes, g.commits = proc == wire.ProcSetattr, proc == wire.ProcCommit
	if c := f.take(t, g); c != nil {
		c.group, c.proc, c.data, c.off, c.size = g, proc, nil, 0, size
		f.start(t, c)
	}
	if err := f.await(t, g); err != nil {
		return fmt.Errorf("%v: %w", proc, err)
	}
	return nil
}
