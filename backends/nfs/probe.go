package nfs

import (
	"fmt"
	"time"

	"nbd-dataplane/backends/nfs/wire"
)

// A server is known by its answers. A file that is not well and that nobody uses, since its requests have timed out or were ended, would stay so for good; so it asks by itself: one NULL call (RFC 1813
// 3.3.0), which connects, is repeated and waits as any other does, with the same pauses, and whose answer ends the outage. Nobody waits for it: it is in limbo, holds nothing, and goes with
// the connection when the file is closed. A file that is well asks nothing.

// probe asks whether the server is back, if there is a doubt. No call is in flight.
func (f *File) probe() {
	if !f.sick || f.refusing || f.endsBy() > 0 {
		return
	}
	k := f.calls.take()
	if k == nil {
		return
	}
	g := f.calls.takeGroup(nil)
	g.limbo, g.pending = true, 1
	f.limbos++
	f.probing = g
	now := f.ctx.Now()
	k.group, k.proc, k.data, k.off, k.size = g, wire.ProcNull, nil, 0, 0
	k.since, k.asked, k.rest, k.busy, k.deadline, k.tried = now, now, 0, 0, 0, false
	f.calls.order++
	k.order = f.calls.order
	f.encode(k)
	f.dispatch(k)
}

// hurry takes back the pause before the next attempt to connect if it was for a probe alone, and somebody waits from now on.
func (c *conn) hurry(k *call) {
	if c.f.probing == nil || k.group == c.f.probing || c.outstanding != 2 || c.retry == nil || c.backoff <= 2*backoffLeast {
		return
	}
	c.retry.Stop()
	c.retry = nil
}

// lag returns what a request waits for although the server answers others, or did until its time was over; nil = none does, or not for long, or lately.
func (f *File) lag() error {
	now := f.ctx.Now()
	if f.lapse != nil && now-f.lapsed < quietMax {
		return f.lapse
	}
	for _, k := range f.calls.all {
		switch {
		case k.state == callFree:
		case k.busy != 0 && now-k.busy >= quietMax:
			return k.putOff()
		case k.overtaken() && now-k.asked >= quietMax:
			return k.passedOver()
		}
	}
	return nil
}

// tenth of a second is how exactly it is told how long something has lasted that may be short.
const tenth = 100 * time.Millisecond

// overtaken reports whether a call was answered over the same connection that was made after k: behind a slow line calls wait for long, but in order.
func (k *call) overtaken() bool { return k.state == callSent && k.order < k.conn.newest }

// passedOver says for how long k was not answered.
func (k *call) passedOver() error {
	return fmt.Errorf("%v is not answered for %v although others are", k.proc, (k.conn.f.ctx.Now() - k.asked).Round(tenth))
}

// putOff says for how long the server has had no time for k.
func (k *call) putOff() error {
	f := k.conn.f
	return fmt.Errorf("%v is put off (%v, \"try again later\") for %v", k.proc, wire.StatusJukebox, (f.ctx.Now() - k.busy).Round(tenth))
}
