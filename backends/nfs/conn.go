package nfs

import (
	"cmp"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// Waits between attempts to connect.
const (
	backoffLeast = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// iovecsMax bounds one sendmsg: enough for 64 KiB in pages, and for twenty WRITEs.
const iovecsMax = 64

// conn is one connection to the server. It is made when a call wants it and stays as long as the server lets it; the calls that it has are
// sent again over its next socket if one is lost.
//
//	        enqueue            attempt done             lost, calls wait
//	idle ------------> dialing ------------> connected -----------------> dialing, or waiting for the next attempt
//	  ^                                           |
//	  +------------ lost, no calls ---------------+
//
// Owned by the context.
type conn struct {
	f           *File
	fd          int                // -1 = not connected
	watcher     *blockcore.Watcher // nil = not connected, or on no loop
	attempt     *attempt           // nil = none is under way
	retry       *blockcore.Timer   // the next attempt; nil = none is planned
	backoff     time.Duration      // before the attempt after the next one
	proven      bool               // a reply has come over this socket
	heard       time.Duration      // when something last came over it
	mute        time.Duration      // since when it has been silent, if a call was given up that it has not answered; 0 = none was
	silence     time.Duration      // how long it may be silent before it is given up
	outstanding int                // calls that it has
	newest      uint64             // the order of the last call that was answered over this socket

	out     []*call // to be sent; those before first are
	first   int
	sent    int  // bytes of out[first] that have left
	queued  bool // TurnEnd will be called
	burst   int  // calls since it was called last
	blocked bool // the socket is full, ReadyOut will be called

	parser
	gatherer
	iovecs  [iovecsMax]unix.Iovec
	message unix.Msghdr
}

// enqueue sends a call when the turn ends, or over the next socket.
func (c *conn) enqueue(k *call) {
	if c.fd < 0 {
		c.hurry(k)
		c.dialSoon()
		return
	}
	c.out = append(c.out, k)
	c.burst++
	c.atTurnEnd()
}

func (c *conn) atTurnEnd() {
	if !c.queued {
		c.queued = true
		c.f.ctx.AtTurnEnd(c)
	}
}

// release takes one call off.
func (c *conn) release() {
	c.f.outstanding--
	if c.outstanding--; c.outstanding == 0 && c.watcher != nil {
		c.watcher.Cool()
		c.ungather()
	}
}

// TurnEnd sends what the turn has brought. It implements blockcore.TurnEnder.
func (c *conn) TurnEnd() {
	c.queued, c.burst = false, 0
	if c.fd >= 0 && !c.blocked {
		c.send()
	}
	if c.fd >= 0 {
		c.gather()
	}
}

// ReadyOut goes on sending. It implements blockcore.Handler.
func (c *conn) ReadyOut() {
	c.blocked = false
	c.send()
}

// ReadyIn takes what has come. It implements blockcore.Handler.
func (c *conn) ReadyIn() bool {
	if c.fd < 0 {
		return false
	}
	c.late = false
	worked := c.receive()
	// Engines that report edges do not announce what is there already: only an empty socket may be left to them.
	if c.fd >= 0 && c.outstanding > 0 && (!worked || c.more || !c.lull && !c.dozes()) {
		c.watcher.Heat()
	}
	return worked
}

// zeroes are for padding.
var zeroes [4]byte

// send sends as much as the socket takes.
func (c *conn) send() {
	for c.first < len(c.out) && !c.blocked {
		n, want, errno := c.sendOnce()
		switch {
		case errno == unix.EAGAIN:
			c.await()
		case errno == unix.EINTR:
		case errno != 0:
			c.lose(fmt.Errorf("send: %w", errno))
			return
		default:
			c.advance(n)
			if n < want {
				c.await()
			}
		}
	}
	if c.first == len(c.out) {
		c.out, c.first = c.out[:0], 0
	}
}

// await has ReadyOut called when there is room.
func (c *conn) await() {
	c.blocked = true
	c.watcher.ArmOut()
}

// sendOnce offers the first calls in one system call, which does not wait: it returns how much was taken of how much.
func (c *conn) sendOnce() (n, want int, errno unix.Errno) {
	count, skip := 0, c.sent
	add := func(p []byte) {
		if skip >= len(p) {
			skip -= len(p)
			return
		}
		p = p[skip:]
		skip = 0
		c.iovecs[count].Base, c.iovecs[count].Len = unsafe.SliceData(p), uint64(len(p))
		want += len(p)
		count++
	}
	for _, k := range c.out[c.first:] {
		if count+3 > iovecsMax {
			break
		}
		add(k.head)
		if k.proc == wire.ProcWrite {
			add(k.data)
			add(zeroes[:wire.Padding(len(k.data))])
		}
	}
	c.message = unix.Msghdr{Iov: &c.iovecs[0], Iovlen: uint64(count)}
	r, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.message)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if e != 0 {
		return 0, want, e
	}
	return int(r), want, 0
}

// recordBytes is how much of k goes over the wire.
func (k *call) recordBytes() int {
	n := len(k.head)
	if k.proc == wire.ProcWrite {
		n += len(k.data) + wire.Padding(len(k.data))
	}
	return n
}

// advance passes over n bytes that have left.
func (c *conn) advance(n int) {
	for n > 0 {
		k := c.out[c.first]
		left := k.recordBytes() - c.sent
		if n < left {
			c.sent += n
			return
		}
		n -= left
		c.sent = 0
		k.state = callSent
		c.out[c.first] = nil
		c.first++
	}
}

// lose gives the socket up. The calls that it has are sent again over the next one.
func (c *conn) lose(why error) {
	c.shut()
	c.f.counters.lost.Add(1)
	c.f.setWhy(why)
	if c.outstanding == 0 {
		return
	}
	for _, k := range c.f.calls.all {
		if k.conn == c && k.state == callSent {
			k.state, k.tried, k.asked = callQueued, true, c.f.ctx.Now()
			k.group.repeated = true
			c.f.counters.repeats.Add(1)
		}
	}
	if !c.proven {
		// It took the connection and nothing good came of it.
		c.f.trouble(why)
		c.later()
		return
	}
	c.dialSoon()
}

// shut closes the socket, whatever is under way on it.
func (c *conn) shut() {
	c.ungather()
	c.gatherer = gatherer{}
	if c.watcher != nil {
		c.watcher.Close()
		c.watcher = nil
	}
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
	clear(c.out)
	c.out, c.first, c.sent, c.blocked = c.out[:0], 0, 0, false
	c.parser.reset()
}

// connected takes a socket, and sends over it what waits, in the order in which it was made.
func (c *conn) connected(fd int) {
	c.fd, c.proven, c.heard, c.mute, c.newest = fd, false, c.f.ctx.Now(), 0, 0
	c.watcher = c.f.ctx.Watch(fd, c)
	for _, k := range c.f.calls.all {
		if k.conn == c && k.state == callQueued {
			c.out = append(c.out, k)
		}
	}
	slices.SortFunc(c.out, func(a, b *call) int { return cmp.Compare(a.order, b.order) })
	if c.outstanding > 0 {
		c.send()
		c.atTurnEnd()
	}
}

// forget takes out of the connection a call that has to end without its reply. A record that has left in part, or comes in at this moment, cannot be
// taken back: the socket goes with it.
func (c *conn) forget(k *call) {
	at := slices.Index(c.out[c.first:], k)
	switch {
	case c.current == k, at == 0 && c.sent > 0:
		k.state = callResting // not to be sent again
		c.lose(fmt.Errorf("a call was given up halfway"))
	case at >= 0:
		c.out = slices.Delete(c.out, c.first+at, c.first+at+1)
	}
}
