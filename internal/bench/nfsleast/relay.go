package nfsleast

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/bench/blocking"
	"nbd-dataplane/internal/bench/dummy"
)

// Sizes of a relay's buffers. They bound what a client may have in flight.
const (
	requestsBytes = 16 << 20
	repliesBytes  = 16 << 20
	requestsMax   = 1024
)

// The numbers of NBD proto.md that are needed here.
const (
	requestMagic = 0x25609513
	simpleMagic  = 0x67446698
	requestLen   = 28
	replyLen     = 16

	cmdRead  = 0
	cmdWrite = 1
	cmdDisc  = 2
	cmdFlush = 3
)

var errRequest = errors.New("a request that the relay does not take")

// Relay is an NBD server. All requests that have come at once go to the server of NFS at once, all replies to the client at once, and in between it sleeps.
type Relay struct {
	// Immutable.
	file file
}

// NewRelay finds the file.
func NewRelay(uri string) (*Relay, error) {
	f, err := find(uri)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", uri, err)
	}
	return &Relay{f}, nil
}

// Serve answers one connection after the other until ln is closed.
func (r *Relay) Serve(ln net.Listener) error {
	return blocking.Serve(ln, func(conn net.Conn) bool { return dummy.Negotiate(conn, r.file.sizeBytes) }, r.client)
}

// client serves a client until he goes, or until something goes wrong.
func (r *Relay) client(fd int) {
	server, err := r.file.connect()
	if err != nil {
		return
	}
	defer unix.Close(server)
	s := &session{client: fd, server: server, file: r.file, in: make([]byte, requestsBytes), back: make([]byte, repliesBytes), floor: 1}
	for s.round() == nil {
	}
}

// request is one of a round. Its place among them is the transaction id.
type request struct {
	typ      uint16
	length   int
	call     []byte
	answer   [replyLen]byte
	answered bool
}

// session is one client.
type session struct {
	// Immutable.
	client, server int
	file           file

	// Owned by the worker's thread.
	in       []byte // of the client
	back     []byte // of the server
	requests []*request
	spare    []*request
	out      blocking.Vector
	expected [cmdFlush + 1]int // bytes of a reply without its data, as the last one was
	floor    int
}

// round answers all that is there.
func (s *session) round() error {
	s.spare = append(s.spare, s.requests...)
	s.requests = s.requests[:0]
	s.out.Reset()
	for begin, end := 0, 0; begin == 0 || begin < end; {
		n, err := blocking.Receive(s.client, s.in[end:])
		if err != nil {
			return err
		}
		if begin, err = s.take(begin, end+n); err != nil {
			return err
		}
		if end += n; end == len(s.in) {
			return errRequest
		}
	}
	if err := s.out.Send(s.server); err != nil {
		return err
	}
	s.out.Reset()
	if err := s.replies(); err != nil {
		return err
	}
	return s.out.Send(s.client)
}

// take makes calls of the requests in in[begin:end], and returns where what is no whole request begins.
func (s *session) take(begin, end int) (int, error) {
	for end-begin >= requestLen {
		h := s.in[begin:]
		typ, length := binary.BigEndian.Uint16(h[6:]), int(binary.BigEndian.Uint32(h[24:]))
		if binary.BigEndian.Uint32(h) != requestMagic || typ > cmdFlush || typ == cmdDisc || length > blockMax || len(s.requests) == requestsMax {
			return begin, errRequest
		}
		size := requestLen
		if typ == cmdWrite {
			size += length
		}
		if end-begin < size {
			return begin, nil
		}
		s.call(h[:size], typ, length)
		begin += size
	}
	return begin, nil
}

// call adds the call for a request.
func (s *session) call(b []byte, typ uint16, length int) {
	var q *request
	if last := len(s.spare) - 1; last >= 0 {
		q, s.spare = s.spare[last], s.spare[:last]
	} else {
		q = &request{}
	}
	proc := [...]wire.Proc{cmdRead: wire.ProcRead, cmdWrite: wire.ProcWrite, cmdFlush: wire.ProcCommit}[typ]
	if q.call == nil || q.typ != typ || q.length != length {
		q.call = s.file.template(proc, length)
	}
	q.typ, q.length, q.answered = typ, length, false
	binary.BigEndian.PutUint32(q.answer[:], simpleMagic)
	copy(q.answer[8:], b[8:16])
	place(q.call, proc, uint32(len(s.requests)), int64(binary.BigEndian.Uint64(b[16:])))
	s.requests = append(s.requests, q)
	s.out.Add(q.call)
	s.out.Add(b[requestLen:])
}

// replies waits for the replies of all calls, and makes answers of them.
func (s *session) replies() error {
	if err := s.expect(); err != nil {
		return err
	}
	begin, end := 0, 0
	for left := len(s.requests); left > 0; {
		if s.floor > 1 {
			blocking.Wait(s.server)
		}
		n, err := blocking.Receive(s.server, s.back[end:])
		if err != nil {
			return err
		}
		for end += n; end-begin >= startBytes; left-- {
			r, err := parseStart(s.back[begin:], blockMax)
			if err != nil {
				return err
			}
			if end-begin < r.bytes {
				break
			}
			if err := s.answer(r, s.back[begin:begin+r.bytes]); err != nil {
				return err
			}
			begin += r.bytes
		}
		if end == len(s.back) {
			return errRequest
		}
		if left > 0 {
			if err := s.setFloor(1); err != nil { // they are shorter than expected
				return err
			}
		}
	}
	return nil
}

// answer adds the answer to a request.
func (s *session) answer(r reply, record []byte) error {
	if int(r.xid) >= len(s.requests) || s.requests[r.xid].answered {
		return fmt.Errorf("reply for call %d: %w", r.xid, wire.ErrMalformed)
	}
	q := s.requests[r.xid]
	q.answered = true
	s.out.Add(q.answer[:])
	if q.typ != cmdRead {
		s.expected[q.typ] = len(record)
		return nil
	}
	// The data is the end of the record.
	padded := q.length + wire.Padding(q.length)
	if len(record) < startBytes+padded {
		return fmt.Errorf("READ of %d bytes: %w", q.length, wire.ErrMalformed)
	}
	s.expected[cmdRead] = len(record) - padded
	s.out.Add(record[len(record)-padded:][:q.length])
	return nil
}

// expect has the kernel wake this thread when all replies of a round have come, if they are short enough to wait in the socket.
func (s *session) expect() error {
	floor := 0
	for _, q := range s.requests {
		floor += s.expected[q.typ]
		if q.typ == cmdRead {
			floor += q.length
		}
		if s.expected[q.typ] == 0 {
			floor = 1
			break
		}
	}
	if floor > floorMax || len(s.requests) == 1 {
		floor = 1
	}
	return s.setFloor(floor)
}

func (s *session) setFloor(n int) error {
	if n == s.floor {
		return nil
	}
	s.floor = n
	return blocking.Await(s.server, n)
}

// floorMax is what fits into any socket's buffer.
const floorMax = 64 << 10
