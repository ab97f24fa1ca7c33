package nfs

import (
	"encoding/binary"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
)

// simLink is a connection, seen from the server: one end of a pair of sockets, whose other end the driver has. It takes bytes as they come, in pieces of any size; calls
// wait to be executed, in any order, and replies to be sent, in any order. Owned by the scheduler.
type simLink struct {
	w       *simWorld
	id      int
	fd      int // -1 = gone
	in      []byte
	calls   []*simCall
	replies []*simReply
	out     []byte // what is left of the reply that is being sent
	last    bool   // the connection breaks behind it
	muted   time.Duration
	ready   int16 // as poll(2) has said
}

// simCall is a call that has come.
type simCall struct {
	record []byte
	due    time.Duration
}

// simReply is a reply, with its marks.
type simReply struct {
	bytes []byte
	due   time.Duration
	last  bool
}

// newLink makes a connection and returns the driver's end of it.
func (w *simWorld) newLink() int {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		w.Fail("socketpair: %v", err)
		return -1
	}
	if w.rng.IntN(2) == 0 {
		// The sizes decide how much a send takes, so they are small, and known.
		for _, fd := range pair {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8192)
		}
	}
	w.settleLinks()
	w.touched = true
	w.links = append(w.links, &simLink{w: w, id: w.serial(), fd: pair[1]})
	return pair[0]
}

// settleLinks ends those that the driver has closed. INVARIANT: no call of a connection is executed when there is a later one. Servers see to that by
// remembering calls; without it a call that was repeated might undo, by being late, what was written after it.
func (w *simWorld) settleLinks() {
	for _, l := range slices.Clone(w.links) {
		for l.fd >= 0 && l.pull(1<<20) {
		}
	}
}

// pull takes some bytes off the socket and reports whether there were any.
func (l *simLink) pull(most int) bool {
	l.w.touched = true
	buf := l.w.scratch[:min(most, len(l.w.scratch))]
	n, _, err := unix.Recvfrom(l.fd, buf, unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN:
		return false
	case err != nil || n == 0:
		l.w.Log("link %d: closed by the driver: %v", l.id, err)
		l.shut()
		return false
	}
	l.in = append(l.in, buf[:n]...)
	for len(l.in) >= 4 {
		size := int(binary.BigEndian.Uint32(l.in) &^ (1 << 31))
		if size < 24 || size > 2<<20 {
			l.w.Fail("link %d: a call of %d bytes", l.id, size)
			return false
		}
		if len(l.in) < 4+size {
			break
		}
		c := &simCall{record: slices.Clone(l.in[4 : 4+size]), due: l.w.soon()}
		l.in = l.in[4+size:]
		if wire.Proc(c.proc()) == wire.ProcSetattr && l.w.bads > 0 && l.w.rng.IntN(4) == 0 {
			c.due += l.w.someTime() // there may be much to be given back
		}
		l.w.Log("link %d: call %08x proc %d", l.id, c.xid(), c.proc())
		l.calls = append(l.calls, c)
	}
	return true
}

func (c *simCall) xid() uint32  { return binary.BigEndian.Uint32(c.record) }
func (c *simCall) proc() uint32 { return binary.BigEndian.Uint32(c.record[20:]) }

// push sends some bytes.
func (l *simLink) push() {
	l.w.touched = true
	if len(l.out) == 0 {
		l.choose()
	}
	n := 1 + l.w.rng.IntN(len(l.out))
	if l.w.rng.IntN(3) > 0 {
		n = len(l.out)
	}
	sent, err := unix.SendmsgN(l.fd, l.out[:n], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	switch {
	case err == unix.EAGAIN:
		return
	case err != nil:
		l.w.Log("link %d: send: %v", l.id, err)
		l.shut()
		return
	}
	l.out = l.out[sent:]
	if len(l.out) == 0 && l.last {
		l.w.Log("link %d: breaks behind a reply", l.id)
		l.shut()
	}
}

// choose takes any reply whose time has come.
func (l *simLink) choose() {
	now := l.w.Now()
	var due []int
	for i, r := range l.replies {
		if r.due <= now {
			due = append(due, i)
		}
	}
	i := due[l.w.rng.IntN(len(due))]
	r := l.replies[i]
	l.replies = slices.Delete(l.replies, i, i+1)
	l.out, l.last = r.bytes, r.last
	l.w.Log("link %d: reply of %d bytes", l.id, len(r.bytes))
}

// executable reports whether a call has come whose time has come as well.
func (l *simLink) executable() bool {
	return slices.ContainsFunc(l.calls, func(c *simCall) bool { return c.due <= l.w.Now() })
}

// execute has any such call executed.
func (l *simLink) execute() {
	due := slices.DeleteFunc(slices.Clone(l.calls), func(c *simCall) bool { return c.due > l.w.Now() })
	l.w.execute(l, due[l.w.rng.IntN(len(due))])
}

// some does something once, or a few times.
func (l *simLink) some(may func() bool, do func()) {
	for n := oneOf(l.w.rng, 1, 1, 2, 10); n > 0 && l.fd >= 0 && !l.quiet() && may(); n-- {
		do()
	}
}

// sendable reports whether there is a reply to be sent now.
func (l *simLink) sendable() bool {
	now := l.w.Now()
	return len(l.out) > 0 || slices.ContainsFunc(l.replies, func(r *simReply) bool { return r.due <= now })
}

// shut ends the connection. Of the calls that are waiting the server executes some, and nobody hears of it.
func (l *simLink) shut() {
	w := l.w
	unix.Close(l.fd)
	l.fd = -1
	w.links = slices.DeleteFunc(slices.Clone(w.links), func(other *simLink) bool { return other == l })
	for _, c := range l.calls {
		if w.up() && w.rng.IntN(2) == 0 {
			w.Log("link %d: call %08x is executed for nobody", l.id, c.xid())
			w.checkLookedAfter(c)
			w.server.Execute(c.record, w.plainFault())
		}
	}
	l.calls, l.replies, l.out = nil, nil, nil
}

// quiet reports whether nothing goes over the connection now, in either direction.
func (l *simLink) quiet() bool { return l.muted > l.w.Now() || l.w.silent > l.w.Now() }

// actions adds what the connection may do now, and tells when it may do more.
func (l *simLink) actions(list []func()) []func() {
	w := l.w
	if l.quiet() {
		w.wake(max(l.muted, w.silent))
		return list
	}
	if l.ready&(unix.POLLIN|unix.POLLHUP|unix.POLLERR) != 0 {
		list = append(list, func() { l.pull(1 + w.rng.IntN(w.pullMax)) })
	}
	if l.sendable() && l.ready&unix.POLLOUT != 0 {
		list = append(list, func() { l.some(l.sendable, l.push) })
	}
	for _, r := range l.replies {
		w.wake(r.due)
	}
	due := false
	for _, c := range l.calls {
		due = due || c.due <= w.Now()
		w.wake(c.due)
	}
	if due {
		list = append(list, func() { l.some(l.executable, l.execute) })
	}
	return list
}
