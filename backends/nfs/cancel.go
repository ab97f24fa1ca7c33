package nfs

import (
	"bytes"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// A request that nobody wants any more (blockcore.Canceller) ends at once, whatever the server does. Its calls are taken back as far as the server has
// not got them. A READ or COMMIT that it has got is forgotten: its reply is nobody's. But a WRITE that it has got may be executed at any time, and must
// not come over what is written to its place later on. So it goes into limbo: without its request, with a copy of its data, it is sent again and
// waited for like any other call, and keeps its range, its room among what is held, and for SETATTR the right to change the size. What is written there
// next waits for its end, as it would for the server in any case; when the answer comes the data is held, as of any WRITE.
//
//	request --- cancelled ---> ErrCancelled
//	  calls: not sent              taken back
//	         READ, COMMIT, ...     forgotten
//	         WRITE, SETATTR        limbo -> answered: held, range free
//	                                     -> the file is closed: dropped, with the connection
//
// INVARIANT: a range that the server may still write to because of a call of ours is locked.

// limboBytesMax bounds the copies in limbo. A request that finds no room there ends when the server answers.
const limboBytesMax = 2 * heldBytesMax

var _ blockcore.Canceller = (*File)(nil)

// unwanted reports whether nobody waits for what t does.
func (f *File) unwanted(t *blockcore.Task) bool { return f.node != nil && f.node.Unwanted(t) }

// Cancel ends the requests that nobody wants. It implements blockcore.Canceller.
func (f *File) Cancel() {
	for _, k := range f.calls.all {
		if k.state != callFree && !k.group.limbo && f.unwanted(k.group.task) {
			f.abandon(k.group)
		}
	}
	// Who waits for something else looks for itself whether it is wanted.
	f.calls.room.WakeAll()
	f.settlers.WakeAll()
	f.roomers.WakeAll()
	f.extenders.WakeAll()
	f.locks.Recheck()
}

// mayRun reports whether the server has got k, or gets the rest of it at this moment.
func (k *call) mayRun() bool {
	c := k.conn
	return k.state == callSent || k.tried || c.sent > 0 && c.first < len(c.out) && c.out[c.first] == k
}

// lingers reports whether k may still change the file if it is given up now.
func (k *call) lingers() bool {
	return (k.proc == wire.ProcWrite || k.proc == wire.ProcSetattr) && k.mayRun()
}

// abandon has the request of g end, unless there is no room for what it leaves behind.
func (f *File) abandon(g *group) {
	var left int64
	for _, k := range f.calls.all {
		if k.state != callFree && k.group == g && k.lingers() {
			left += int64(len(k.data))
		}
	}
	if f.limboBytes+left > limboBytesMax {
		return
	}
	f.counters.cancelled.Add(1)
	g.cancel()
	var z *group
	for _, k := range f.calls.all {
		if k.state == callFree || k.group != g {
			continue
		}
		if !k.lingers() {
			k.conn.forget(k)
			f.finish(k, blockcore.ErrCancelled)
			continue
		}
		if z == nil {
			z = f.intoLimbo(g, left)
		}
		// The rest of a record that has left in part comes from the copy, which is the same.
		k.data, k.group = bytes.Clone(k.data), z
		z.pending++
		g.pending--
	}
	if g.pending == 0 {
		g.waiter.WakeAll()
	}
}

// cancel notes that g makes no more calls.
func (g *group) cancel() {
	if g.err == nil {
		g.err = blockcore.ErrCancelled
	}
}

// intoLimbo makes a group of calls that nobody waits for, which takes over what g holds.
func (f *File) intoLimbo(g *group, dataBytes int64) *group {
	z := f.calls.takeGroup(nil)
	z.limbo, z.lock, z.pages, z.resizes, z.dataBytes = true, g.lock, g.pages, g.resizes, dataBytes
	g.handed = true
	f.limbos++
	f.limboBytes += dataBytes
	if z.resizes {
		f.resizing++
	}
	return z
}

// leaveLimbo gives back what z holds: all of its calls have ended.
func (f *File) leaveLimbo(z *group) {
	f.limbos--
	f.limboBytes -= z.dataBytes
	if z.lock != nil {
		f.locks.Release(z.lock)
	}
	f.giveRoom(z.pages)
	if z.resizes {
		f.resizing--
		f.extenders.WakeAll()
	}
	f.calls.giveGroup(z)
}

// awaitLimbo waits until nothing changes the file that nobody waits for, and keeps everybody from its contents until the lock is released.
func (f *File) awaitLimbo(t *blockcore.Task) (*blockcore.RangeLock, error) {
	for f.resizing > 0 {
		if f.unwanted(t) {
			return nil, blockcore.ErrCancelled
		}
		t.Wait(&f.extenders)
	}
	lock := f.locks.AcquireWanted(t, f.node, blockcore.Range{Length: 1 << 62}, true)
	if lock == nil {
		return nil, blockcore.ErrCancelled
	}
	return lock, nil
}

// suspendLimbo is for a file that leaves its loop with calls in limbo: they stay with their connections, or wait for one.
func (f *File) suspendLimbo() {
	for _, k := range f.calls.all {
		if k.timer != nil {
			k.timer.Stop()
			k.timer = nil
		}
	}
}

// resumeLimbo goes on with them on another loop.
func (f *File) resumeLimbo() {
	for _, k := range f.calls.all {
		if k.state == callResting {
			f.again(k)
		}
	}
	for _, c := range f.conns {
		switch {
		case c.outstanding == 0:
		case c.fd < 0:
			c.dialSoon()
		default:
			c.send()
			c.atTurnEnd()
		}
	}
	f.keepWatch()
}
