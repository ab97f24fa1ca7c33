package nbd

import (
	"encoding/binary"
)

// replyStyle is the shape of replies that was negotiated.
type replyStyle uint8

const (
	styleSimple replyStyle = iota
	styleStructured
	styleExtended
)

func (n *negotiated) style() replyStyle {
	switch {
	case n.extended:
		return styleExtended
	case n.structured:
		return styleStructured
	}
	return styleSimple
}

// Lengths of reply headers. NBD proto.md, "Simple reply message", "Structured reply chunk message"; extended
// headers, "Extended reply chunk message".
const (
	simpleReply     = 16
	structuredReply = 20
	extendedReply   = 32
)

// simple appends a simple reply.
func (c *Conn) simple(q *request, e Errno) {
	p := c.header(simpleReply)
	binary.BigEndian.PutUint32(p, MagicSimpleReply)
	binary.BigEndian.PutUint32(p[4:], uint32(e))
	binary.BigEndian.PutUint64(p[8:], q.header.cookie)
}

// chunk appends the header of a structured or extended chunk whose payload is length bytes long, of which
// the first fixed bytes are returned to be filled in; the rest is appended by the caller.
func (c *Conn) chunk(q *request, flags ChunkFlags, kind ChunkType, length, fixed int) []byte {
	if c.style == styleExtended {
		p := c.header(extendedReply + fixed)
		binary.BigEndian.PutUint32(p, MagicExtendedReply)
		binary.BigEndian.PutUint16(p[4:], uint16(flags))
		binary.BigEndian.PutUint16(p[6:], uint16(kind))
		binary.BigEndian.PutUint64(p[8:], q.header.cookie)
		binary.BigEndian.PutUint64(p[16:], q.header.offset)
		binary.BigEndian.PutUint64(p[24:], uint64(length))
		return p[extendedReply:]
	}
	p := c.header(structuredReply + fixed)
	binary.BigEndian.PutUint32(p, MagicStructuredReply)
	binary.BigEndian.PutUint16(p[4:], uint16(flags))
	binary.BigEndian.PutUint16(p[6:], uint16(kind))
	binary.BigEndian.PutUint64(p[8:], q.header.cookie)
	binary.BigEndian.PutUint32(p[16:], uint32(length))
	return p[structuredReply:]
}

// replyDone answers success without data.
func (c *Conn) replyDone(q *request) {
	switch {
	case c.broken:
	case c.style == styleSimple:
		c.simple(q, 0)
	default:
		c.chunk(q, ChunkFlagDone, ChunkNone, 0, 0)
	}
}

// replyEnd ends a reply whose data was sent without DONE. A simple one has no such end.
func (c *Conn) replyEnd(q *request) {
	if c.style != styleSimple && !c.broken {
		c.chunk(q, ChunkFlagDone, ChunkNone, 0, 0)
	}
}

// replyErrorAt ends a structured reply with an error at an offset of the export, behind data for that place.
func (c *Conn) replyErrorAt(q *request, e Errno, text string, offset uint64) {
	text = cut(text, messageMax)
	n := 6 + len(text) + 8
	p := c.chunk(q, ChunkFlagDone, ChunkErrorOffset, n, n)
	binary.BigEndian.PutUint32(p, uint32(e))
	binary.BigEndian.PutUint16(p[4:], uint16(len(text)))
	copy(p[6:], text)
	binary.BigEndian.PutUint64(p[6+len(text):], offset)
}

// replyError answers with an error, and in words where the style has room for them.
func (c *Conn) replyError(q *request, e Errno, text string) {
	switch {
	case c.broken:
	case c.style == styleSimple:
		c.simple(q, e)
	default:
		text = cut(text, messageMax)
		p := c.chunk(q, ChunkFlagDone, ChunkError, 6+len(text), 6+len(text))
		binary.BigEndian.PutUint32(p, uint32(e))
		binary.BigEndian.PutUint16(p[4:], uint16(len(text)))
		copy(p[6:], text)
	}
}

// replyRead answers a READ with buf, which it takes over together with what q has reserved.
func (c *Conn) replyRead(q *request, buf []byte) {
	if c.broken {
		c.ctx.Buffers().Put(buf)
		return
	}
	c.stats.read += uint64(len(buf))
	charge := q.charge
	q.charge = 0
	switch {
	case c.style == styleSimple:
		c.simple(q, 0)
		c.data(buf, buf, charge)
	case q.header.flags&CmdFlagDF == 0 && len(buf) >= sparseMin:
		c.replySparse(q, buf, charge)
	default:
		p := c.chunk(q, ChunkFlagDone, ChunkOffsetData, 8+len(buf), 8)
		binary.BigEndian.PutUint64(p, q.header.offset)
		c.data(buf, buf, charge)
	}
}
