package nbd

import (
	"encoding/binary"
	"fmt"
)

// Lengths of request headers. NBD proto.md, "Request message"; extended headers, same section.
const (
	compactHeader  = 28
	extendedHeader = 32
)

// header is a request as it stands on the wire, of either style.
type header struct {
	flags   CommandFlags
	command Command
	cookie  uint64
	offset  uint64
	length  uint64
}

// payload returns how many bytes follow the header.
func (h *header) payload(extended bool) uint64 {
	if h.command == CmdDisc {
		return 0 // nothing behind it is looked at
	}
	if extended {
		if h.flags&CmdFlagPayloadLen != 0 {
			return h.length
		}
		return 0
	}
	if h.command == CmdWrite {
		return h.length
	}
	return 0
}

// parse starts the requests that are complete, at most a burst, and reports whether it did anything.
func (c *Conn) parse() bool {
	worked := false
	for range c.lane.burst(c) {
		if c.ended || c.blocked || !c.parseOne() {
			break
		}
		worked = true
	}
	return worked
}

// parseOne takes one request, or one step towards it, from what was received. It reports whether it got on.
func (c *Conn) parseOne() bool {
	switch {
	case c.skip > 0:
		return c.skipPayload()
	case c.large != nil:
		return c.startLarge()
	}
	var h header
	size, ok := c.peek(&h)
	if !ok {
		return false
	}
	q := c.lane.request()
	q.conn, q.header = c, h
	q.check(c)
	if !c.fits(q) {
		c.lane.putRequest(q)
		c.blocked = true
		return false
	}
	if !c.take(q, size) {
		return false
	}
	return true
}

// peek decodes the header at the beginning of what was received and returns its length. The two styles differ in their
// magic and in the width of their last field.
func (c *Conn) peek(h *header) (size int, ok bool) {
	if c.in == nil {
		return 0, false
	}
	magic := MagicRequest
	size = compactHeader
	if c.agreed.extended {
		magic, size = MagicExtendedRequest, extendedHeader
	}
	p := c.in.memory[c.begin:c.end]
	if len(p) < size {
		return 0, c.magicFits(p, magic)
	}
	if m := binary.BigEndian.Uint32(p); m != magic {
		c.badMagic(m)
		return 0, false
	}
	h.flags = CommandFlags(binary.BigEndian.Uint16(p[4:]))
	h.command = Command(binary.BigEndian.Uint16(p[6:]))
	h.cookie = binary.BigEndian.Uint64(p[8:])
	h.offset = binary.BigEndian.Uint64(p[16:])
	if c.agreed.extended {
		h.length = binary.BigEndian.Uint64(p[24:])
	} else {
		h.length = uint64(binary.BigEndian.Uint32(p[24:]))
	}
	return size, true
}

// magicFits ends the connection when an incomplete header already has the wrong magic: the client would
// wait for us as we for it. It is false, as its caller's result.
func (c *Conn) magicFits(p []byte, want uint32) bool {
	if len(p) >= 4 {
		if m := binary.BigEndian.Uint32(p); m != want {
			c.badMagic(m)
		}
	}
	return false
}

// badMagic ends the connection: where the next request begins is unknown.
func (c *Conn) badMagic(m uint32) {
	c.endInput(CauseProtocol, fmt.Errorf("request with magic %#08x", m))
}

// fits reserves what q needs, or arranges for another try. While the export is drained a request stays where it is, as the
// bytes that were received.
func (c *Conn) fits(q *request) bool {
	if c.export.still && q.admitted() {
		return false
	}
	if c.inFlight >= c.limits.Requests || c.crammed() {
		return false
	}
	q.charge = q.cost(c)
	return q.charge == 0 || c.room(q.charge)
}

// take consumes the header of q, of size bytes, and starts q when its payload is there too. It reports
// false when more must be received first, and then q has been put away or made c.large.
func (c *Conn) take(q *request, size int) bool {
	length := q.header.payload(c.agreed.extended)
	have := uint64(c.end - c.begin - size)
	switch {
	case length == 0:
		c.begin += size
	case q.refused != 0:
		if length > payloadSkipMax {
			c.lane.putRequest(q)
			c.endInput(CauseProtocol, fmt.Errorf("%v with a payload of %d bytes, the limit is %d", q.header.command, length, payloadMax))
			return false
		}
		c.begin += size
		c.skip, c.skipped = length, q
		return true
	case have >= length:
		at := c.begin + size
		q.payload = c.in.memory[at : at+int(length) : at+int(length)]
		q.slab = c.in
		c.in.refs++
		c.begin = at + int(length)
	case length <= payloadInSlabMax:
		c.unhold(q.charge)
		c.lane.putRequest(q)
		return false
	default:
		c.begin += size
		c.beginLarge(q, int(length))
		return true
	}
	if c.begin == c.end && c.in.refs == 1 {
		c.begin, c.end = 0, 0
	}
	c.launch(q)
	return true
}

// beginLarge gives q a buffer of its own and moves there what has been received of its payload.
func (c *Conn) beginLarge(q *request, length int) {
	q.payload = c.ctx.Buffers().Get(length)
	q.ownBuffer = true
	q.filled = copy(q.payload, c.in.memory[c.begin:c.end])
	c.begin += q.filled
	c.large = q
	c.progress = c.ctx.Now()
}

// startLarge starts the large write when its payload is complete.
func (c *Conn) startLarge() bool {
	q := c.large
	if q.filled < len(q.payload) {
		return false
	}
	if c.export.still && !c.export.retired {
		c.blocked = true
		return false
	}
	c.large = nil
	q.check(c) // the export may be smaller by now, or going
	c.launch(q)
	return true
}

// dropLarge puts away a write whose payload will never be complete.
func (c *Conn) dropLarge() {
	q := c.large
	c.large = nil
	c.ctx.Buffers().Put(q.payload)
	c.unhold(q.charge)
	c.lane.putRequest(q)
}

// skipPayload throws away what has come of a refused payload. Only when all of it has, the request is answered:
// a client that is still sending expects no reply yet.
func (c *Conn) skipPayload() bool {
	n := min(c.skip, uint64(c.end-c.begin))
	c.skip -= n
	c.begin += int(n)
	if c.skip == 0 {
		q := c.skipped
		c.skipped = nil
		c.launch(q)
	}
	return n > 0
}

// launch starts q as a Task.
func (c *Conn) launch(q *request) {
	c.inFlight++
	c.stats.requests++
	c.ctx.Backlog(c.end-c.begin >= compactHeader)
	c.ctx.Spawn(q)
}
