package nfs

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// quietMax is how long a server may leave calls unanswered, put them off, or pass one over, before somebody is told.
	quietMax = 5 * time.Second
	// silenceLeast and silenceMost are how long it may be silent before its connection is given up and made anew, which repeats the calls: a disk
	// that spins up, or a large COMMIT, takes its time. Each time in a row it is twice as long.
	silenceLeast = time.Minute
	silenceMost  = 10 * time.Minute
	// watchEach is how often calls in flight are looked at.
	watchEach = time.Second
	// watchLeast is the most often.
	watchLeast = 10 * time.Millisecond
	// closeMax is how long the last flush of a node that is closed may take in all: less than what its graph waits.
	closeMax = 20 * time.Second
)

// Health is how a server is doing.
type Health struct {
	// URL is the file, Node what it is called in the graph; "" = it is in none.
	URL, Node string
	// OK: calls are answered, as far as there are any, and none is put off, or passed over, for long.
	OK bool
	// Refuses: nothing is written any more, as the lock of the file was lost. It stays so.
	Refuses bool
	// Why it is not well, or was not.
	Why string
	// Since is when it became like this.
	Since time.Time
	// Lasted is how long it was not well, when it is again.
	Lasted time.Duration
}

// String is one line for people.
func (h Health) String() string {
	if h.OK {
		return fmt.Sprintf("%s: the server answers again after %v", h.URL, h.Lasted.Round(time.Millisecond))
	}
	if h.Refuses {
		return fmt.Sprintf("%s: %s", h.URL, h.Why)
	}
	return fmt.Sprintf("%s: the server does not answer (%s); requests wait", h.URL, h.Why)
}

// counters of what goes wrong, and is put right. Safe from anywhere.
type counters struct {
	connects  atomic.Uint64 // sockets made after the first
	lost      atomic.Uint64 // sockets lost
	repeats   atomic.Uint64 // calls sent again
	jukebox   atomic.Uint64 // times that the server had no time
	strays    atomic.Uint64 // replies that nobody waited for
	replays   atomic.Uint64 // times that a restart of the server has lost what was written, and it was written again
	commits   atomic.Uint64
	cancelled atomic.Uint64 // requests that ended early
}

func (f *File) nodeName() string {
	if f.node == nil {
		return ""
	}
	return f.node.Name()
}

// Condition is Health for who knows nothing of NFS. Safe from anywhere.
func (f *File) Condition() (ok bool, why string, since time.Time) {
	h := f.Health()
	return h.OK, h.Why, h.Since
}

// RefusesWrites reports that nothing is written any more, as the lock of the file was lost. Safe from anywhere.
func (f *File) RefusesWrites() bool { return f.Health().Refuses }

// Incidents is Counters for who knows nothing of NFS. Safe from anywhere.
func (f *File) Incidents() any { return f.Counters() }

// Counters tell what has gone wrong at a server, and was put right.
type Counters struct {
	Connects  uint64 `json:"reconnects"`
	Lost      uint64 `json:"connections-lost"`
	Repeats   uint64 `json:"repeated-calls"`
	Jukebox   uint64 `json:"delays"`
	Strays    uint64 `json:"stray-replies"`
	Replays   uint64 `json:"replays"`
	Commits   uint64 `json:"commits"`
	Cancelled uint64 `json:"cancelled-requests"`
}

// Counters returns them. Safe from anywhere.
func (f *File) Counters() Counters {
	c := &f.counters
	return Counters{c.connects.Load(), c.lost.Load(), c.repeats.Load(), c.jukebox.Load(), c.strays.Load(), c.replays.Load(), c.commits.Load(), c.cancelled.Load()}
}

// Health returns how the server is doing. Safe from anywhere.
func (f *File) Health() Health { return *f.health.Load() }

// trouble notes that calls are not answered, and why.
func (f *File) trouble(why error) {
	h := *f.health.Load()
	first := h.OK
	if first {
		h = Health{URL: f.url, Node: f.nodeName(), Since: time.Now()}
	}
	if !f.refusing {
		h.Why = why.Error()
	}
	f.health.Store(&h)
	f.sick = true
	if first && f.onHealth != nil {
		f.onHealth(h)
	}
}

// setWhy keeps why a connection was lost for who asks while it is made anew.
func (f *File) setWhy(why error) {
	if f.sick {
		f.trouble(why)
	}
}

// well notes that a call was answered.
func (f *File) well() {
	if !f.sick || f.refusing || f.lag() != nil {
		return
	}
	f.sick, f.lapse = false, nil
	before := f.health.Load()
	now := time.Now()
	h := Health{URL: f.url, Node: f.nodeName(), OK: true, Why: before.Why, Since: now, Lasted: now.Sub(before.Since)}
	f.health.Store(&h)
	if f.onHealth != nil {
		f.onHealth(h)
	}
}

// errSilent ends a call that has waited as long as it may.
var errSilent = fmt.Errorf("the server has not answered in time: %w", syscall.ETIMEDOUT)

// keepWatch looks at the calls in flight every now and then, while there are any.
func (f *File) keepWatch() {
	if f.watch != nil {
		return
	}
	each := watchEach
	if d := f.patience(); d > 0 {
		each = min(each, max(d/8, watchLeast))
	}
	f.watch = f.ctx.After(each, f.look)
}

// look ends calls that have waited long enough, and connections that have been silent too long.
func (f *File) look() {
	f.watch = nil
	now := f.ctx.Now()
	f.hasten()
	for _, k := range f.calls.all {
		if k.state != callFree && k.deadline > 0 && now >= k.deadline {
			f.expire(k)
		}
	}
	if f.limbos > 0 {
		f.recheck() // what they wait for has no end of its own
	}
	busy := false
	for _, c := range f.conns {
		busy = busy || c.outstanding > 0
		c.listen(now)
	}
	if why := f.lag(); why != nil {
		f.trouble(why)
	}
	if busy {
		f.keepWatch()
		return
	}
	f.held.idle(f.ctx.Buffers())
	f.probe()
}

// hasten bounds the calls that were made before the node, or one above it, began to be closed: the close waits for them.
func (f *File) hasten() {
	by := f.endsBy()
	if by == 0 {
		return
	}
	for _, k := range f.calls.all {
		if k.state != callFree && !k.group.limbo && (k.deadline == 0 || k.deadline > by) {
			k.deadline = by
		}
	}
}

// expire ends the request of a call whose time is over. Where the server answers others it stays unwell: those that it answers are no sign that the next one is
// answered that is like this, and an outage is told of once.
func (f *File) expire(k *call) {
	why := errSilent
	switch {
	case k.busy != 0:
		why = k.putOff()
	case k.overtaken():
		why = k.passedOver()
	}
	if why != errSilent {
		f.lapse, f.lapsed = why, f.ctx.Now()
	}
	if why != errSilent || !f.sick { // otherwise more is known: why there is no connection
		f.trouble(why)
	}
	f.abandon(k.group, errSilent)
}

// hush has the connection of a call that ends without an answer remember how long it has been silent, which is longer than any call may wait.
func (c *conn) hush(k *call) {
	if c.mute == 0 {
		c.mute = max(k.since, c.heard)
	}
}

// listen looks how long c has been silent although calls wait for their replies.
func (c *conn) listen(now time.Duration) {
	if c.fd < 0 {
		return
	}
	oldest := now
	if c.mute != 0 {
		oldest = c.mute
	}
	for _, k := range c.f.calls.all {
		if k.conn != c || k.state != callSent && k.state != callQueued {
			continue
		}
		oldest = min(oldest, max(k.since, c.heard))
		if now-k.asked >= silenceMost {
			// Others are answered, but it is forgotten, or so are all that the connection has.
			c.lose(fmt.Errorf("%v was not answered for %v", k.proc, silenceMost))
			return
		}
	}
	silent := now - oldest
	if silent >= quietMax {
		c.f.trouble(fmt.Errorf("silent for %v", silent.Round(time.Second)))
	}
	if silent >= c.silence {
		c.silence = min(2*c.silence, silenceMost)
		c.lose(fmt.Errorf("silent for %v", silent.Round(time.Second)))
	}
}
