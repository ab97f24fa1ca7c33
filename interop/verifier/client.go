package verifier

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// BlockBytes is the unit of all requests.
const BlockBytes = 4096

// Options say what a client does.
type Options struct {
	Socket string
	Export string
	Depth  int   // requests in flight
	Index  int   // of this client among Of: it has every Of-th block
	Of     int   // clients
	Blocks int64 // of the area that the clients share
	Seed   uint64
}

// Client verifies an export until Stop. Run's goroutine owns what stands under no heading.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	random *rand.Rand
	slots  []slot
	free   []int
	blocks map[int64]*block

	// Immutable.
	o Options

	// Safe from anywhere.
	done       atomic.Int64 // requests answered
	reconnects atomic.Int64
	stopping   atomic.Bool
}

// slot is one request in flight.
type slot struct {
	command uint16
	at      int64 // block
	version uint64
}

// block is what is known of one: what was acknowledged, and what may be there instead since its answer was lost.
type block struct {
	version uint64
	maybe   []uint64
	busy    bool
}

// New returns a client; Run starts it.
func New(o Options) *Client {
	c := &Client{o: o, random: rand.New(rand.NewPCG(o.Seed, uint64(o.Index))), blocks: map[int64]*block{}, slots: make([]slot, o.Depth)}
	return c
}

// Done returns how many requests were answered. Safe from anywhere.
func (c *Client) Done() int64 { return c.done.Load() }

// Reconnects returns how often the client was thrown out. Safe from anywhere.
func (c *Client) Reconnects() int64 { return c.reconnects.Load() }

// Stop has Run return once everything is answered. Safe from anywhere.
func (c *Client) Stop() { c.stopping.Store(true) }

// reconnectMax is how long a server may be away.
const reconnectMax = 20 * time.Second

// Run works until Stop, and returns what went wrong. A connection that ends is made again: what was in flight on it may have
// been done or not, and both are right.
func (c *Client) Run() error {
	for {
		if err := c.connect(); err != nil {
			return err
		}
		err := c.work()
		c.conn.Close()
		switch {
		case err == nil:
			return nil
		case !lost(err):
			return err
		}
		c.reconnects.Add(1)
		c.forgetAnswers()
	}
}

// lost tells a connection that has ended from a server that is wrong.
func lost(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op)
}

func (c *Client) connect() error {
	var err error
	for begin := time.Now(); time.Since(begin) < reconnectMax; {
		if c.conn, err = net.Dial("unix", c.o.Socket); err != nil {
			continue
		}
		if err = negotiate(c.conn, c.o.Export); err == nil {
			c.in = bufio.NewReaderSize(c.conn, 256<<10)
			c.free = c.free[:0]
			for i := range c.slots {
				c.free = append(c.free, i)
			}
			return nil
		}
		c.conn.Close()
	}
	return fmt.Errorf("connecting: %w", err)
}

// forgetAnswers takes back what was in flight on a connection that has ended.
func (c *Client) forgetAnswers() {
	for _, s := range c.slots {
		b := c.blocks[s.at]
		if b == nil || !b.busy {
			continue
		}
		b.busy = false
		if s.command == cmdWrite {
			b.maybe = append(b.maybe, s.version)
		}
	}
	clear(c.slots)
}

// work keeps the connection full until Stop.
func (c *Client) work() error {
	for {
		if !c.stopping.Load() {
			if err := c.fill(); err != nil {
				return err
			}
		}
		if len(c.free) == len(c.slots) {
			return nil
		}
		if err := c.answer(); err != nil {
			return err
		}
	}
}

// fill starts a request in each free slot, all in one write.
func (c *Client) fill() error {
	var out []byte
	for len(c.free) > 0 {
		i := c.free[len(c.free)-1]
		at := c.o.Of64()*c.random.Int64N(c.o.Blocks/c.o.Of64()) + int64(c.o.Index)
		b := c.blocks[at]
		if b == nil {
			b = &block{}
			c.blocks[at] = b
		}
		if b.busy {
			continue // another one
		}
		c.free = c.free[:len(c.free)-1]
		out = c.begin(out, i, at, b)
	}
	if len(out) == 0 {
		return nil
	}
	_, err := c.conn.Write(out)
	return err
}

// Of64 is the number of clients.
func (o Options) Of64() int64 { return int64(o.Of) }

func (c *Client) begin(out []byte, i int, at int64, b *block) []byte {
	b.busy = true
	s := &c.slots[i]
	*s = slot{command: cmdRead, at: at}
	switch n := c.random.IntN(20); {
	case n == 0:
		s.command = cmdFlush
		return appendRequest(out, 0, cmdFlush, uint64(i), 0, 0)
	case n < 10:
		s.command = cmdWrite
		s.version = c.random.Uint64() | 1
		out = appendRequest(out, 0, cmdWrite, uint64(i), uint64(at)*BlockBytes, BlockBytes)
		return appendVersion(out, at, s.version)
	}
	return appendRequest(out, 0, cmdRead, uint64(i), uint64(at)*BlockBytes, BlockBytes)
}

// appendVersion appends the contents of a block: its number and version, again and again. Version 0 is zeroes.
func appendVersion(out []byte, at int64, version uint64) []byte {
	if version == 0 {
		return append(out, make([]byte, BlockBytes)...)
	}
	for range BlockBytes / 16 {
		out = binary.BigEndian.AppendUint64(out, uint64(at))
		out = binary.BigEndian.AppendUint64(out, version)
	}
	return out
}

// answer takes one answer and checks it.
func (c *Client) answer() error {
	var head [16]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return err
	}
	if magic := binary.BigEndian.Uint32(head[:]); magic != replyMagic {
		return fmt.Errorf("reply with magic %#x", magic)
	}
	i := binary.BigEndian.Uint64(head[8:])
	if i >= uint64(len(c.slots)) {
		return fmt.Errorf("reply with cookie %#x", i)
	}
	s := c.slots[i]
	b := c.blocks[s.at]
	if b == nil || !b.busy {
		return fmt.Errorf("reply to a request that is not in flight: %#x", i)
	}
	if code := binary.BigEndian.Uint32(head[4:]); code != 0 {
		return fmt.Errorf("command %d on block %d was answered with error %d", s.command, s.at, code)
	}
	if err := c.settle(s, b); err != nil {
		return err
	}
	b.busy = false
	c.slots[i] = slot{}
	c.free = append(c.free, int(i))
	c.done.Add(1)
	return nil
}

func (c *Client) settle(s slot, b *block) error {
	switch s.command {
	case cmdWrite:
		b.version, b.maybe = s.version, nil
	case cmdRead:
		var data [BlockBytes]byte
		if _, err := io.ReadFull(c.in, data[:]); err != nil {
			return err
		}
		return b.check(s.at, data[:])
	}
	return nil
}

// check compares what was read with what may be there, and learns from it which it is.
func (b *block) check(at int64, data []byte) error {
	got := binary.BigEndian.Uint64(data[8:])
	want := append(b.maybe, b.version)
	for _, version := range want {
		if got == version && string(appendVersion(nil, at, version)) == string(data) {
			b.version, b.maybe = version, nil
			return nil
		}
	}
	return fmt.Errorf("block %d reads as block %d in version %#x, want one of %#x", at, binary.BigEndian.Uint64(data), got, want)
}
