package dummy

import (
	"encoding/binary"
	"io"
	"net"
)

const (
	inBytes    = 256 << 10
	outBytes   = 256 << 10
	blockMax   = 32 << 20
	optionMax  = 4096
	requestLen = 28
)

// The few numbers of NBD proto.md that are needed here.
const (
	nbdMagic        = 0x4e42444d41474943
	optMagic        = 0x49484156454f5054
	replyMagic      = 0x3e889045565a9
	requestMagic    = 0x25609513
	simpleMagic     = 0x67446698
	structuredMagic = 0x668e33ef

	optExportName = 1
	optAbort      = 2
	optGo         = 7
	optStructured = 8

	repAck      = 1
	repInfo     = 3
	repErrUnsup = 1<<31 | 1

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3

	chunkData = 1
	chunkHole = 2

	eio    = 5
	einval = 22
)

// connection is owned by the goroutine in serve.
type connection struct {
	// Immutable.
	s    *Server
	conn net.Conn

	// Owned by the context.
	in         []byte // in[begin:end] is received and not parsed
	begin, end int
	out        []byte
	structured bool
	requests   int
}

func newConnection(s *Server, conn net.Conn) *connection {
	return &connection{s: s, conn: conn, in: make([]byte, inBytes), out: make([]byte, 0, outBytes)}
}

// serve negotiates and answers; whatever goes wrong ends the connection and no more.
func (c *connection) serve() {
	if !c.negotiate() {
		return
	}
	for c.request() {
	}
	_ = c.flush()
}

// need makes n bytes available at in[begin:], and answers what is owed before it waits.
func (c *connection) need(n int) bool {
	if c.end-c.begin >= n {
		return true
	}
	c.end = copy(c.in, c.in[c.begin:c.end])
	c.begin = 0
	if n > len(c.in) {
		c.in = append(c.in, make([]byte, n-len(c.in))...)
	}
	if c.flush() != nil {
		return false
	}
	m, err := io.ReadAtLeast(c.conn, c.in[c.end:], n-c.end)
	c.end += m
	return err == nil
}

// take consumes n bytes that need made available.
func (c *connection) take(n int) []byte {
	b := c.in[c.begin : c.begin+n]
	c.begin += n
	return b
}

func (c *connection) flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *connection) u16(v uint16) { c.out = binary.BigEndian.AppendUint16(c.out, v) }
func (c *connection) u32(v uint32) { c.out = binary.BigEndian.AppendUint32(c.out, v) }
func (c *connection) u64(v uint64) { c.out = binary.BigEndian.AppendUint64(c.out, v) }

// negotiate is the handshake up to NBD_OPT_GO.
func (c *connection) negotiate() bool {
	c.u64(nbdMagic)
	c.u64(optMagic)
	c.u16(3) // fixed newstyle, no zeroes
	if !c.need(4) {
		return false
	}
	c.take(4)
	for {
		if !c.need(16) {
			return false
		}
		h := c.take(16)
		option, length := binary.BigEndian.Uint32(h[8:]), int(binary.BigEndian.Uint32(h[12:]))
		if length > optionMax || !c.need(length) {
			return false
		}
		c.take(length)
		switch option {
		case optGo:
			c.info()
			c.optionReply(option, repAck, 0)
			return true
		case optStructured:
			c.structured = true
			c.optionReply(option, repAck, 0)
		case optAbort, optExportName:
			return false
		default:
			c.optionReply(option, repErrUnsup, 0)
		}
	}
}

func (c *connection) optionReply(option, typ uint32, length int) {
	c.u64(replyMagic)
	c.u32(option)
	c.u32(typ)
	c.u32(uint32(length))
}

func (c *connection) info() {
	flags := uint16(1 | 1<<8)
	if c.s.ReadOnly {
		flags |= 1 << 1
	}
	if !c.s.NoFlush {
		flags |= 1<<2 | 1<<3
	}
	c.optionReply(optGo, repInfo, 12)
	c.u16(0)
	c.u64(uint64(c.s.sizeBytes))
	c.u16(flags)
}
