package nbd

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// outbox holds the replies of one connection that the socket has not taken. Owned by the context.
type outbox struct {
	segments []segment
	first    int    // segments before it have left
	dropped  int    // segments that were in front of segments[0]
	sent     int    // bytes of segments[first] that have left
	headers  []byte // room for headers, of which this much is used; nil while empty
	held     int    // bytes of the segments that are not data of a READ
	licensed bool   // outboxHeadersMax of the process's budget are reserved for held
	queued   bool   // TurnEnd will be called
	blocked  bool   // the socket is full, ReadyOut will be called
}

// segment is a piece of a reply.
type segment struct {
	memory []byte
	buffer []byte // given back when the segment has left; nil for headers
	charge int64  // bytes held for the request
	header bool   // memory is room of the outbox, not of a buffer
	// promised: memory is being filled by the request that owns it until then; nothing behind it may be
	// sent before.
	promised bool
}

const (
	// headerBlock is the room for headers that is taken at once, in bytes.
	headerBlock = 8 << 10
	// segmentsKeptMax bounds the list that a connection keeps while it has nothing to say.
	segmentsKeptMax = 256
)

func (o *outbox) empty() bool { return o.first == len(o.segments) }

// crammed reports that a client which goes on asking has to read first. The data of READs is held to account
// by the budgets; everything else is small, but there is no end to it. A little is free; for more the connection asks the
// budget of the process, once for all it may hold. Who is refused waits for nobody but its own client.
func (c *Conn) crammed() bool {
	o := &c.out
	switch {
	case o.held <= outboxHeadersFree:
		return false
	case o.held > outboxHeadersMax:
		return true
	case !o.licensed:
		o.licensed = c.server.budget.take(outboxHeadersMax, false)
	}
	return !o.licensed
}

// unlicense gives back what crammed has reserved, when so little is held that it is free.
func (o *outbox) unlicense(c *Conn) {
	if o.licensed && o.held <= outboxHeadersFree {
		o.licensed = false
		c.server.budget.give(outboxHeadersMax)
	}
}

// header appends n bytes to the outbox and returns them to be filled in.
func (c *Conn) header(n int) []byte {
	o := &c.out
	if cap(o.headers)-len(o.headers) < n {
		o.headers = make([]byte, 0, max(headerBlock, n))
	}
	used := len(o.headers)
	o.headers = o.headers[:used+n]
	p := o.headers[used : used+n : used+n]
	if last := len(o.segments) - 1; last >= o.first && o.follows(last, p) {
		m := o.segments[last].memory
		o.segments[last].memory = unsafe.Slice(unsafe.SliceData(m), len(m)+n)
	} else {
		o.segments = append(o.segments, segment{memory: p, header: true})
	}
	o.held += n
	c.queue()
	return p
}

// follows reports whether p lies right behind segment i, a header, in the same block.
func (o *outbox) follows(i int, p []byte) bool {
	s := &o.segments[i]
	if s.buffer != nil || s.promised || len(o.headers) == len(p) {
		return false
	}
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(s.memory)), len(s.memory)) == unsafe.Pointer(unsafe.SliceData(p))
}

// data appends memory, a part of buffer. buffer is given back, and charge ended, when it has left; a nil
// buffer belongs to a later segment.
func (c *Conn) data(memory, buffer []byte, charge int64) {
	c.out.segments = append(c.out.segments, segment{memory: memory, buffer: buffer, charge: charge})
	c.queue()
}

// charge leaves up to n bytes of what q has reserved with what was appended last, until that has left.
func (c *Conn) charge(q *request, n int64) {
	n = min(n, q.charge)
	q.charge -= n
	c.out.segments[len(c.out.segments)-1].charge += n
}

// promise keeps a place at the end of the outbox for buf, which fulfil hands over.
func (c *Conn) promise(buf []byte) (place int) {
	c.out.segments = append(c.out.segments, segment{memory: buf, promised: true})
	return c.out.dropped + len(c.out.segments) - 1
}

// fulfil makes a promised segment an ordinary one. The outbox was not discarded meanwhile, so the
// place is still the same.
func (c *Conn) fulfil(place int, buf []byte, charge int64) {
	c.out.segments[place-c.out.dropped] = segment{memory: buf, buffer: buf, charge: charge}
	c.queue()
}

// queue has the outbox sent at the end of the turn.
func (c *Conn) queue() {
	if !c.out.queued {
		c.out.queued = true
		c.ctx.AtTurnEnd(c)
	}
}

// flush sends as much as the socket takes.
func (c *Conn) flush() {
	c.out.queued = false
	c.push(0)
}

// push sends as much as the socket takes, with flags of send(2).
func (c *Conn) push(flags int) {
	o := &c.out
	if c.broken {
		o.discard(c)
		return
	}
	held := o.held
	for !o.empty() && !o.blocked && !o.segments[o.first].promised {
		n, want, errno := c.lane.send(c.fd, o, flags)
		switch {
		case errno == unix.EAGAIN:
			c.awaitClient()
		case errno == unix.EINTR:
		case errno != 0:
			c.lose(fmt.Errorf("send: %w", errno))
			return
		default:
			o.advance(c, n)
			if n < want {
				c.awaitClient()
			}
		}
	}
	if o.empty() {
		o.reset()
	}
	if held > outboxHeadersFree && o.held < held {
		c.unblock() // it may have been crammed
	}
}

// awaitClient has ReadyOut called when the client has taken something.
func (c *Conn) awaitClient() {
	c.out.blocked = true
	c.progress = c.ctx.Now()
	c.watcher.ArmOut()
}

// send sends the first segments in one system call, which does not wait. It returns how much was taken of how
// much was offered.
func (l *lane) send(fd int, o *outbox, flags int) (n, want int, errno unix.Errno) {
	count := 0
	skip := o.sent
	for i := o.first; i < len(o.segments) && count < iovecsMax && !o.segments[i].promised; i++ {
		m := o.segments[i].memory[skip:]
		skip = 0
		l.iovecs[count].Base, l.iovecs[count].Len = unsafe.SliceData(m), uint64(len(m))
		want += len(m)
		count++
	}
	l.message = unix.Msghdr{Iov: &l.iovecs[0], Iovlen: uint64(count)}
	r, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&l.message)), uintptr(flags)|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if e != 0 {
		return 0, want, e
	}
	return int(r), want, 0
}

// advance drops n bytes that have left.
func (o *outbox) advance(c *Conn, n int) {
	for n > 0 {
		s := &o.segments[o.first]
		left := len(s.memory) - o.sent
		if n < left {
			o.sent += n
			break
		}
		n -= left
		o.sent = 0
		o.done(c, s)
		o.first++
	}
	if o.first >= segmentsKeptMax && o.first >= len(o.segments)/2 {
		o.compact()
	}
}

// compact moves the segments to the front: to a client that always lags a little the outbox may never
// be empty.
func (o *outbox) compact() {
	left := copy(o.segments, o.segments[o.first:])
	clear(o.segments[left:])
	o.segments = o.segments[:left]
	o.dropped += o.first
	o.first = 0
}

func (o *outbox) done(c *Conn, s *segment) {
	if s.buffer != nil {
		c.ctx.Buffers().Put(s.buffer)
	}
	if s.charge > 0 {
		c.unhold(s.charge)
	}
	if s.header {
		o.held -= len(s.memory)
		o.unlicense(c)
	}
	*s = segment{}
}

// reset makes an empty outbox start at its beginning again.
func (o *outbox) reset() {
	o.segments = o.segments[:0]
	o.first, o.sent = 0, 0
	o.headers = o.headers[:0]
	if cap(o.headers) > headerBlock {
		o.headers = nil
	}
	if cap(o.segments) > segmentsKeptMax {
		o.segments = nil
	}
}

// discard drops everything.
func (o *outbox) discard(c *Conn) {
	for i := o.first; i < len(o.segments); i++ {
		o.done(c, &o.segments[i])
	}
	o.reset()
}

// release gives up the memory of an outbox that is not needed any more.
func (o *outbox) release(c *Conn) {
	o.discard(c)
	o.segments, o.headers = nil, nil
}
