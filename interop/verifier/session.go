package verifier

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

// sessionDepth is how many requests of a Session are in flight.
const sessionDepth = 8

// longestSectors bounds a request. Many Sessions send at once, and what is sent must not wait for memory of the server.
const longestSectors = 256

// Session is one connection that works on the disk of a Ledger until the server is gone.
type Session struct {
	// Immutable.
	ledger *Ledger
	conn   net.Conn
	free   chan int      // slots without a request
	gone   chan struct{} // closed by Run when nothing comes any more

	// Guarded by mu.
	mu    sync.Mutex
	slots [sessionDepth]request
}

// request is one in flight.
type request struct {
	command, flags uint16
	first, count   int64 // sectors
	stamp          uint64
	sent           int64
	busy           bool
}

// Dial connects a session to an export.
func (l *Ledger) Dial(socket, export string) (*Session, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := negotiate(conn, export); err != nil {
		conn.Close()
		return nil, err
	}
	s := &Session{ledger: l, conn: conn, free: make(chan int, sessionDepth), gone: make(chan struct{})}
	for k := range sessionDepth {
		s.free <- k
	}
	return s, nil
}

// Run works until the connection ends, and returns what the server did wrong. What to do is decided by the seed.
func (s *Session) Run(seed uint64) error {
	defer s.conn.Close()
	sent := make(chan error, 1)
	go s.sendLoop(rand.New(rand.NewPCG(seed, 2)), sent)
	err := s.receive()
	close(s.gone)
	s.conn.Close()
	if sendErr := <-sent; err == nil {
		err = sendErr
	}
	if lost(err) {
		return nil
	}
	return err
}

// sendLoop sends requests while there are free slots. Run starts it; it ends when the connection does.
func (s *Session) sendLoop(random *rand.Rand, ended chan<- error) {
	for {
		select {
		case <-s.gone:
			ended <- nil
			return
		case k := <-s.free:
			if _, err := s.conn.Write(s.next(random, k)); err != nil {
				ended <- err
				return
			}
		}
	}
}

// next chooses a request for a slot, notes it, and returns it as it is sent.
func (s *Session) next(random *rand.Rand, slot int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.slots[slot]
	for {
		*r = s.choose(random)
		if s.ledger.begin(r) {
			break
		}
	}
	r.busy = true
	out := appendRequest(nil, r.flags, r.command, uint64(slot), uint64(r.first*SectorBytes), uint32(r.count*SectorBytes))
	if r.command == cmdWrite {
		out = appendSectors(out, r.first, r.count, r.stamp)
	}
	return out
}

// choose makes up a request: half of them near to the others of this time, so that places are written again and again.
func (s *Session) choose(random *rand.Rand) request {
	r := request{command: cmdWrite}
	switch n := random.IntN(100); {
	case n < 3:
		return request{command: cmdFlush}
	case n < 20:
		r.command = cmdRead
	case n < 28:
		r.command = cmdTrim
	case n < 38:
		r.command, r.flags = cmdZeroes, uint16(random.IntN(2)*flagNoHole)
	}
	if r.command != cmdRead && random.IntN(30) == 0 {
		r.flags |= flagFUA
	}
	size := s.ledger.Bytes() / SectorBytes
	r.count = 1 + random.Int64N(16)
	if random.IntN(8) == 0 {
		r.count = 1 + random.Int64N(longestSectors)
	}
	r.first = random.Int64N(size)
	if random.IntN(2) == 0 {
		r.first = random.Int64N(max(size/32, 1))
	}
	if unit := s.ledger.granuleSectors; random.IntN(3) == 0 && unit <= longestSectors {
		r.first, r.count = r.first/unit*unit, (r.count+unit-1)/unit*unit
	}
	r.count = min(r.count, size-r.first)
	return r
}

// receive takes answers until the connection ends.
func (s *Session) receive() error {
	in := bufio.NewReaderSize(s.conn, 256<<10)
	for {
		var head [16]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		if magic := binary.BigEndian.Uint32(head[:]); magic != replyMagic {
			return fmt.Errorf("reply with magic %#x", magic)
		}
		slot := binary.BigEndian.Uint64(head[8:])
		r, err := s.take(slot)
		if err != nil {
			return err
		}
		switch code := binary.BigEndian.Uint32(head[4:]); code {
		case 0:
		case codeShutdown: // it is as if there were no answer; the connection ends soon
			continue
		default:
			return fmt.Errorf("command %d on %d sectors from %d was answered with error %d", r.command, r.count, r.first, code)
		}
		var data []byte
		if r.command == cmdRead {
			data = make([]byte, r.count*SectorBytes)
			if _, err := io.ReadFull(in, data); err != nil {
				return err
			}
		}
		if err := s.ledger.end(&r, data); err != nil {
			return err
		}
		s.free <- int(slot)
	}
}

// take returns the request that an answer is for.
func (s *Session) take(slot uint64) (request, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot >= sessionDepth || !s.slots[slot].busy {
		return request{}, fmt.Errorf("reply to a request that is not in flight: %#x", slot)
	}
	s.slots[slot].busy = false
	return s.slots[slot], nil
}
