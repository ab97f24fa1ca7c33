package least

import (
	"encoding/binary"
	"errors"
	"net"

	"nbd-dataplane/internal/bench/blocking"
	"nbd-dataplane/internal/bench/dummy"
)

// requestsBytes bounds what a client may have in flight.
const requestsBytes = 16 << 20

// The numbers of NBD proto.md that are needed here.
const (
	requestMagic = 0x25609513
	simpleMagic  = 0x67446698
	requestLen   = 28
	replyLen     = 16

	cmdRead  = 0
	cmdWrite = 1
	cmdFlush = 3
)

var errRequest = errors.New("a request that is not taken")

// Server is an export in memory.
type Server struct {
	// Owned by the worker's thread.
	data []byte
}

// New returns a server of sizeBytes, all of them in memory already: a first look at a page would cost what no later one does.
func New(sizeBytes int64) *Server {
	s := &Server{make([]byte, sizeBytes)}
	for i := 0; i < len(s.data); i += 512 {
		s.data[i] = byte(i >> 12)
	}
	return s
}

// Serve answers one connection after the other until ln is closed.
func (s *Server) Serve(ln net.Listener) error {
	return blocking.Serve(ln, func(conn net.Conn) bool { return dummy.Negotiate(conn, int64(len(s.data))) }, s.client)
}

// client serves a client until he goes, or until something goes wrong.
func (s *Server) client(fd int) {
	c := &session{data: s.data, in: make([]byte, requestsBytes)}
	for c.round(fd) == nil {
	}
}

// session is one client.
type session struct {
	// Immutable.
	data []byte

	// Owned by the worker's thread.
	in      []byte
	end     int // of what has come and is not answered
	out     blocking.Vector
	answers [][replyLen]byte
}

// round waits for something and answers the requests that have come whole.
func (c *session) round(fd int) error {
	if c.end == len(c.in) {
		return errRequest
	}
	n, err := blocking.Receive(fd, c.in[c.end:])
	if err != nil {
		return err
	}
	c.end += n
	c.out.Reset()
	c.answers = c.answers[:0]
	if cap(c.answers) < c.end/requestLen { // they stay where they are while the message is made
		c.answers = make([][replyLen]byte, 0, c.end/requestLen)
	}
	begin := 0
	for {
		n, err := c.take(c.in[begin:c.end])
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		begin += n
	}
	c.end = copy(c.in, c.in[begin:c.end])
	return c.out.Send(fd)
}

// take adds the answer to the request at the begin of p and returns how long that is; 0 = it has not come whole.
func (c *session) take(p []byte) (int, error) {
	if len(p) < requestLen {
		return 0, nil
	}
	typ, offset, length := binary.BigEndian.Uint16(p[6:]), binary.BigEndian.Uint64(p[16:]), int(binary.BigEndian.Uint32(p[24:]))
	total := uint64(len(c.data))
	if binary.BigEndian.Uint32(p) != requestMagic || offset > total || uint64(length) > total-offset {
		return 0, errRequest
	}
	size := requestLen
	if typ == cmdWrite {
		size += length
	}
	if len(p) < size {
		return 0, nil
	}
	c.answers = append(c.answers, [replyLen]byte{})
	answer := c.answers[len(c.answers)-1][:]
	binary.BigEndian.PutUint32(answer, simpleMagic)
	copy(answer[8:], p[8:16])
	c.out.Add(answer)
	switch typ {
	case cmdRead:
		c.out.Add(c.data[offset:][:length])
	case cmdWrite:
		copy(c.data[offset:], p[requestLen:size])
	case cmdFlush:
	default:
		return 0, errRequest // DISC among them
	}
	return size, nil
}
