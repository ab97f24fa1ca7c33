package nfs

import (
	"bytes"
	"time"

	"nbd-dataplane/blockcore"
)

// A request that nobody wants any more (blockcore.Canceller) ends at once, whatever the server does, and one whose time is over (Options.Timeout) then. Its calls
// are taken back as far as the server has not got them. A READ that it has got is forgotten: its reply is nobody's. But a WRITE that it has got may be executed at any time,
// and must not come over what is written to its place later on; and a COMMIT that it has got may fail, drop what was written meanwhile, and tell it in no other answer. So these go
// into limbo: without their request, with a copy of the data, they are sent again and waited for like any other call, for as long as it takes. A WRITE keeps its range
// and its room among what is held, SETATTR the right to change the size, and COMMIT that to be the only one. Who wants the same waits for the end, as he would for the server
// in any case, or until his own time is over; when the answer comes the data is held, as of any WRITE, and stored or in doubt, as after any COMMIT.
//
//	request --- given up ---> ErrCancelled, errSilent
//	  calls: not sent              taken back
//	         READ, GETATTR         forgotten
//	         WRITE, SETATTR        limbo -> answered: held, range free
//	         COMMIT                limbo -> answered: what it covers is stored, or all that is held in doubt
//	                                     -> the file is closed: dropped, with the connection
//
// INVARIANT: a range that the server may still write to because of a call of ours is locked. No COMMIT is sent while the server may still answer another one.

// limboBytesMax bounds the copies in limbo. A request that nobody wants and that finds no room there ends when the server answers. One whose time is over ends all the same; then
// nothing is written until there is room again, so what is beyond it is at most what was in flight.
const limboBytesMax = 2 * heldBytesMax

var (
	_ blockcore.Canceller = (*File)(nil)
	_ blockcore.Patience  = (*File)(nil)
)

// unwanted reports whether nobody waits for what t does.
func (f *File) unwanted(t *blockcore.Task) bool { return f.node != nil && f.node.Unwanted(t) }

// Cancel ends the requests that nobody wants. It implements blockcore.Canceller.
func (f *File) Cancel() {
	for _, k := range f.calls.all {
		if k.state != callFree && !k.group.limbo && f.unwanted(k.group.task) {
			f.abandon(k.group, blockcore.ErrCancelled)
		}
	}
	f.recheck()
}

// recheck has all look who wait for something else than their own calls whether they still want to.
func (f *File) recheck() {
	f.calls.room.WakeAll()
	f.settlers.WakeAll()
	f.roomers.WakeAll()
	f.extenders.WakeAll()
	f.locks.Recheck()
}

// tired returns why t, which has waited since then for something else than its own calls, is to wait no longer; nil = it is. Without limbo it is for others whose time
// is bounded.
func (f *File) tired(t *blockcore.Task, since time.Duration) error {
	if f.unwanted(t) {
		return blockcore.ErrCancelled
	}
	if f.limbos == 0 {
		return nil
	}
	now, timeout, by := t.Now(), f.Timeout(), f.endsBy()
	if timeout > 0 && now-since >= timeout || by > 0 && now >= by {
		return errSilent
	}
	return nil
}

// GivesUp implements blockcore.Patience.
func (f *File) GivesUp(t *blockcore.Task, since time.Duration) bool { return f.tired(t, since) != nil }

// wait waits for somebody else, unless that has lasted too long: since keeps when it has begun, 0 before.
func (f *File) wait(t *blockcore.Task, q *blockcore.WaitQueue, since *time.Duration) error {
	if *since == 0 {
		*since = t.Now()
	}
	if err := f.tired(t, *since); err != nil {
		return err
	}
	t.Wait(q)
	return nil
}

// hold has a range for t alone.
func (f *File) hold(t *blockcore.Task, r blockcore.Range) (*blockcore.RangeLock, error) {
	lock := f.locks.AcquireOr(t, f, r, true)
	switch {
	case lock != nil:
		return lock, nil
	case f.unwanted(t):
		return nil, blockcore.ErrCancelled
	}
	return nil, errSilent
}

// mayRun reports whether the server has got k, or gets the rest of it at this moment.
func (k *call) mayRun() bool {
	c := k.conn
	return k.state == callSent || k.tried || c.sent > 0 && c.first < len(c.out) && c.out[c.first] == k
}

// lingers reports whether k may still change the file, or what is known of it, if it is given up now.
func (k *call) lingers() bool { return changes(k.proc) && k.mayRun() }

// abandon has the request of g end with why: ErrCancelled, unless there is no room for what it leaves behind, or errSilent.
func (f *File) abandon(g *group, why error) {
	var left int64
	for _, k := range f.calls.all {
		if k.state != callFree && k.group == g && k.lingers() {
			left += int64(len(k.data))
		}
	}
	if why == blockcore.ErrCancelled {
		if f.limboBytes+left > limboBytesMax {
			return
		}
		f.counters.cancelled.Add(1)
	}
	g.giveUp(why)
	var z *group
	for _, k := range f.calls.all {
		if k.state == callFree || k.group != g {
			continue
		}
		if !k.lingers() {
			if why == errSilent {
				k.conn.hush(k)
			}
			k.conn.forget(k)
			f.finish(k, why)
			continue
		}
		if z == nil {
			z = f.intoLimbo(g, left)
		}
		// The rest of a record that has left in part comes from the copy, which is the same.
		k.data, k.group, k.deadline = bytes.Clone(k.data), z, 0
		z.pending++
		g.pending--
	}
	if g.pending == 0 {
		g.waiter.WakeAll()
	}
}

// giveUp notes that g makes no more calls.
func (g *group) giveUp(why error) {
	if g.err == nil {
		g.err = why
	}
}

// intoLimbo makes a group of calls that nobody waits for, which takes over what g holds.
func (f *File) intoLimbo(g *group, dataBytes int64) *group {
	z := f.calls.takeGroup(nil)
	z.limbo, z.lock, z.pages, z.resizes, z.dataBytes = true, g.lock, g.pages, g.resizes, dataBytes
	z.commits, z.upTo, z.repeated = g.commits, g.upTo, g.repeated
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
	if z.commits {
		f.concluded(z)
		f.settled(z.err)
	}
	if f.probing == z {
		f.probing = nil
	}
	f.calls.giveGroup(z)
}

// awaitLimbo waits until nothing changes the file that nobody waits for, and keeps everybody from its contents until the lock is released.
func (f *File) awaitLimbo(t *blockcore.Task) (*blockcore.RangeLock, error) {
	since := time.Duration(0)
	for f.resizing > 0 {
		if err := f.wait(t, &f.extenders, &since); err != nil {
			return nil, err
		}
	}
	return f.hold(t, blockcore.Range{Length: 1 << 62})
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
