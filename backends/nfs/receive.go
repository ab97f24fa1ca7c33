package nfs

import (
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
)

const (
	// inBytes is how much is received at once where it is not known to whom it belongs.
	inBytes = 64 << 10
	// behindBytes is how much is received behind data that has its place: room for the next heads, little of the next data.
	behindBytes = 4 << 10
	// largeBytes is a READ whose data is worth a system call to have received in its place.
	largeBytes = 32 << 10
	// replyBytesMax bounds a reply without its data: the head, twice attributes and what is around them.
	replyBytesMax = 1024
	// recordBytesMax bounds a reply. INVARIANT: no reply that is wanted is longer.
	recordBytesMax = transferMax + replyBytesMax
)

// stage is what the next bytes of a record are.
type stage uint8

const (
	stageHead stage = iota // what says to which call it belongs, and for a READ how much data there is
	stageData              // of a READ
	stageBody              // the results of another call
	stageSkip              // nothing that anybody wants
)

// parser cuts what comes over a socket into records and gives each to its call. A record may come in any number of fragments that
// end anywhere (RFC 5531 11). Owned by the context.
type parser struct {
	in         []byte // received; nil until there was something
	more       bool   // there may be: the last receive brought all that it had room for, or the engine would not tell of an end that came with it
	begin, end int    // in[begin:end] is not parsed yet

	fragment  int  // bytes of the fragment that are still to come
	last      bool // it is the record's last
	inRecord  bool
	fragments int // of the record so far
	bytes     int // of them

	stage    stage
	head     [replyBytesMax]byte
	filled   int // of head
	need     int // so much of head is wanted next
	headEnd  int // where the results begin in head
	current  *call
	read     wire.ReadResult
	dataDone int // bytes of data that are in their place
}

// reset forgets a record that has come in part.
func (p *parser) reset() {
	p.begin, p.end, p.more = 0, 0, false
	p.fragment, p.inRecord = 0, false
	p.nextRecord()
}

func (p *parser) nextRecord() {
	p.last, p.inRecord, p.fragments, p.bytes = false, false, 0, 0
	p.stage, p.filled, p.need, p.headEnd, p.current, p.dataDone = stageHead, 0, wire.HeadBytesLeast, 0, nil, 0
	p.read = wire.ReadResult{}
}

// receive takes what the socket has, in one system call, and reports whether there was something.
func (c *conn) receive() bool {
	n, errno := c.recv()
	switch {
	case errno == unix.EAGAIN && c.more:
		c.more = false
		c.atTurnEnd() // now it can be said how to wait
		return false
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return false
	case errno != 0:
		c.lose(fmt.Errorf("receive: %w", errno))
		return true
	case n == 0:
		c.lose(io.EOF)
		return true
	}
	c.heard, c.mute = c.f.ctx.Now(), 0
	if err := c.parse(); err != nil {
		c.lose(err)
		return true
	}
	if c.fd >= 0 {
		c.pace(c.heard, c.f.outstanding)
		if c.waiting {
			c.timer.Reset(gatherMax)
		}
		c.atTurnEnd()
	}
	return true
}

// recv receives: data into its place where it has one, and behind it what there is room for.
func (c *conn) recv() (int, unix.Errno) {
	if c.in == nil {
		c.in = make([]byte, inBytes)
	}
	if c.begin == c.end {
		c.begin, c.end = 0, 0
	} else if len(c.in)-c.end < behindBytes {
		c.end = copy(c.in, c.in[c.begin:c.end])
		c.begin = 0
	}
	if c.stage == stageData && c.begin == c.end && c.fragment > 0 {
		return c.recvData()
	}
	free := c.in[c.end:]
	if c.f.largeReads > 0 {
		// The next bytes may be the data of a long READ, which had better not come through in.
		free = free[:min(len(free), behindBytes)]
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(free))), uintptr(len(free)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	c.end += int(n)
	c.more = int(n) == len(free) || c.f.ctx.TellsOnce()
	return int(n), 0
}

// recvData receives data of a READ into its place, and a little behind it.
func (c *conn) recvData() (int, unix.Errno) {
	rest := c.current.data[c.dataDone:c.read.DataBytes]
	rest = rest[:min(len(rest), c.fragment)]
	behind := c.in[:behindBytes]
	c.iovecs[0].Base, c.iovecs[0].Len = unsafe.SliceData(rest), uint64(len(rest))
	c.iovecs[1].Base, c.iovecs[1].Len = unsafe.SliceData(behind), uint64(len(behind))
	c.message = unix.Msghdr{Iov: &c.iovecs[0], Iovlen: 2}
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.message)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return 0, errno
	}
	inPlace := min(int(n), len(rest))
	c.dataDone += inPlace
	c.fragment -= inPlace
	c.end = int(n) - inPlace
	c.more = int(n) == len(rest)+len(behind) || c.f.ctx.TellsOnce()
	return int(n), 0
}

// parse goes through what was received. An error is of the connection: what comes behind it cannot be understood.
func (c *conn) parse() error {
	for {
		if c.fragment > 0 {
			if c.begin == c.end && !(c.stage == stageData && c.dataDone == c.read.DataBytes) {
				return nil
			}
			if err := c.step(); err != nil {
				return err
			}
			continue
		}
		if c.inRecord && c.last {
			if err := c.endRecord(); err != nil {
				return err
			}
			if c.fd < 0 {
				return nil
			}
			continue
		}
		if c.end-c.begin < wire.MarkBytes {
			return nil
		}
		if err := c.mark(); err != nil {
			return err
		}
	}
}

// mark reads a record mark.
func (c *conn) mark() error {
	n, last := wire.Mark(c.in[c.begin:])
	c.begin += wire.MarkBytes
	c.fragment, c.last, c.inRecord = n, last, true
	c.fragments++
	c.bytes += n
	if c.bytes > recordBytesMax || c.fragments > fragmentsMax {
		return fmt.Errorf("reply of %d bytes in %d fragments: %w", c.bytes, c.fragments, wire.ErrMalformed)
	}
	return nil
}

// step takes some bytes of a fragment.
func (c *conn) step() error {
	n := min(c.fragment, c.end-c.begin)
	from := c.in[c.begin : c.begin+n]
	switch c.stage {
	case stageHead:
		n = copy(c.head[c.filled:c.need], from)
	case stageBody:
		if n = copy(c.head[c.filled:], from); n == 0 {
			return fmt.Errorf("%v has a reply of more than %d bytes: %w", c.current.proc, replyBytesMax, wire.ErrMalformed)
		}
	case stageData:
		if c.dataDone == c.read.DataBytes {
			c.stage = stageSkip
			return nil
		}
		n = copy(c.current.data[c.dataDone:c.read.DataBytes], from)
		c.dataDone += n
	}
	c.begin += n
	c.fragment -= n
	if c.stage == stageHead || c.stage == stageBody {
		c.filled += n
	}
	if c.stage == stageHead && c.filled == c.need {
		return c.parseHead()
	}
	return nil
}

// parseHead looks at as much of the head as has come, and decides what follows.
func (c *conn) parseHead() error {
	b := c.head[:c.filled]
	h, need, err := wire.ParseHead(b)
	if err != nil {
		return err
	}
	k := c.f.calls.byXID(h.XID)
	if k == nil || k.conn != c || k.state == callResting {
		// It comes twice, or for a call that was given up.
		c.f.counters.strays.Add(1)
		c.stage = stageSkip
		return nil
	}
	if k.state != callSent {
		return fmt.Errorf("%v is answered before it was sent: %w", k.proc, wire.ErrMalformed)
	}
	if need > 0 {
		c.need = need
		return nil
	}
	c.current, c.headEnd = k, h.Bytes
	switch {
	case h.Err != nil:
		c.read.Err = h.Err
		c.stage = stageSkip
		return nil
	case k.proc != wire.ProcRead:
		c.stage = stageBody
		return nil
	}
	r, need, err := wire.ParseRead(b[h.Bytes:], len(k.data))
	switch {
	case err != nil:
		return fmt.Errorf("READ: %w", err)
	case need > 0:
		c.need = h.Bytes + need
	case r.Err != nil:
		c.read, c.stage = r, stageSkip
	default:
		c.read, c.stage = r, stageData
	}
	return nil
}

// endRecord gives a record that is complete to its call.
func (c *conn) endRecord() error {
	k, at, read := c.current, c.stage, c.read
	results := c.head[c.headEnd:c.filled]
	short := at == stageHead || at == stageData && c.dataDone < read.DataBytes
	c.came(c.bytes)
	c.nextRecord()
	if short {
		return fmt.Errorf("reply that ends too early: %w", wire.ErrMalformed)
	}
	if k == nil {
		return nil
	}
	order := k.order
	if refused, ok := read.Err.(*wire.RefusedError); ok { // as it is set in parseHead
		c.f.finish(k, refused)
		c.answered(order)
		return nil
	}
	if k.proc == wire.ProcRead {
		c.f.repliedRead(k, read)
		c.answered(order)
		return nil
	}
	if err := c.f.replied(k, results); err != nil {
		return err
	}
	c.answered(order)
	return nil
}

// answered notes that the server is well, and has done with the call of that order.
func (c *conn) answered(order uint64) {
	c.proven, c.backoff, c.silence = true, 0, silenceLeast
	c.newest = max(c.newest, order)
	c.f.well()
}
