package nbd

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// slabSpaceMin is the room behind the received bytes below which a slab is changed or tidied.
	slabSpaceMin = 32 << 10
	// payloadInSlabMax is the longest payload that is waited for in the slab; a longer one gets a buffer of its
	// own, which it is received into without a copy.
	payloadInSlabMax = 32 << 10
	// behindLargeMax is how much is received behind the end of a large payload: room for the next
	// headers, but little of the next payload.
	behindLargeMax = 4 << 10
)

// receive takes what the socket has, as far as there is room, and reports whether there was something.
func (c *Conn) receive() bool {
	c.makeSpace()
	var n int
	var errno syscall.Errno
	c.emptied = false
	if c.large != nil {
		n, errno = c.receiveLarge()
	} else {
		room := c.in.memory[c.end:]
		n, errno = recv(c.fd, room)
		if n > 0 {
			c.end += n
			c.emptied = n < len(room)
		}
	}
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		c.putSlab()
		return false
	case errno != 0:
		c.endInput(CauseReset, fmt.Errorf("receive: %w", errno))
		return true
	case n == 0:
		c.endInput(CauseEOF, c.cutShort())
		return true
	}
	return true
}

// alone reports whether the last reception has brought one request, the first after before of them, and nothing else.
func (c *Conn) alone(before uint64) bool {
	return c.emptied && c.large == nil && c.begin == c.end && c.stats.requests == before+1
}

// cutShort tells what an end of file came into the middle of; nil when it came between requests.
func (c *Conn) cutShort() error {
	switch {
	case c.large != nil, c.skip > 0:
		return fmt.Errorf("end of file in the payload of a request")
	case c.end > c.begin:
		return fmt.Errorf("end of file in a request")
	}
	return nil
}

// makeSpace sees to it that there is a slab with room behind what was received.
func (c *Conn) makeSpace() {
	if c.in == nil {
		c.in, c.begin, c.end = c.lane.slab(), 0, 0
		return
	}
	if c.begin == c.end && c.in.refs == 1 {
		c.begin, c.end = 0, 0
		return
	}
	if len(c.in.memory)-c.end >= slabSpaceMin {
		return
	}
	rest := c.in.memory[c.begin:c.end]
	if c.in.refs == 1 {
		c.begin, c.end = 0, copy(c.in.memory, rest)
		return
	}
	next := c.lane.slab()
	c.end = copy(next.memory, rest)
	c.begin = 0
	c.lane.drop(c.in)
	c.in = next
}

// putSlab gives the slab up while nothing is in it, so that a connection that rests holds no memory. While a request has
// its payload there the slab is kept, for the next payloads to come behind it: a slab for each would be memory that nobody is
// charged for.
func (c *Conn) putSlab() {
	if c.in != nil && c.begin == c.end && c.in.refs == 1 {
		c.lane.drop(c.in)
		c.in, c.begin, c.end = nil, 0, 0
	}
}

// receiveLarge receives into the payload of c.large, and a little behind it.
func (c *Conn) receiveLarge() (int, syscall.Errno) {
	rest := c.large.payload[c.large.filled:]
	behind := c.in.memory[c.end:min(c.end+behindLargeMax, len(c.in.memory))]
	n, errno := c.lane.recv2(c.fd, rest, behind)
	if n <= 0 {
		return n, errno
	}
	c.large.filled += min(n, len(rest))
	c.progress = c.ctx.Now()
	c.end += max(n-len(rest), 0)
	return n, 0
}

// recv is recv(2) in a raw system call: it does not wait, so the scheduler need not know.
func recv(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// recv2 receives into a and then into b.
func (l *lane) recv2(fd int, a, b []byte) (int, syscall.Errno) {
	l.iovecs[0].Base, l.iovecs[0].Len = unsafe.SliceData(a), uint64(len(a))
	l.iovecs[1].Base, l.iovecs[1].Len = unsafe.SliceData(b), uint64(len(b))
	l.message = unix.Msghdr{Iov: &l.iovecs[0], Iovlen: 2}
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&l.message)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
