package nbd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// randomSeed is NBD_SEED, or a new one.
func randomSeed(t *testing.T) uint64 {
	if s := os.Getenv("NBD_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 0, 64)
		require.NoError(t, err)
		return seed
	}
	return rand.Uint64()
}

// Goal: nothing that several clients do in any mixture changes a byte that it should not (RD-1, WR-1, WZ-1, ORD-1, ORD-4, CTX-2). Method: four
// clients of all styles under small limits, each in its quarter of a disk whose every request suspends: all commands and faulty ones, pipelined, cut
// into random segments, against a flat array; in the end the disk is compared with the arrays. NBD_SEED=n repeats a run.
func TestRandomClients(t *testing.T) {
	seed := randomSeed(t)
	t.Logf("seed %d", seed)
	defer func() { t.Logf("seed %d", seed) }()
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		const quarter = 512 << 10
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 4 * quarter},
			server: ServerOptions{Limits: Limits{Requests: 6, ConnectionBytes: 300_000, ExportBytes: 2 * mib, ProcessBytes: 2 * mib}}})
		h.disk.Add(blocktest.Rule{Op: blocktest.OpAny, Delay: time.Microsecond})
		var clients []*randomClient
		done := make(chan error, 4)
		for i := range 4 {
			o := fuzzStyles[i+i/3] // simple twice, structured twice, of which one with a context; extended
			o.export = "disk"
			r := &randomClient{w: h.dial(o), base: uint64(i) * quarter, model: make([]byte, quarter), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
			clients = append(clients, r)
			go func() { done <- r.run(250) }()
		}
		for range clients {
			require.NoError(t, <-done)
		}
		for i, r := range clients {
			sameBytes(t, r.model, h.disk.Contents(blockcore.Range{Offset: int64(i) * quarter, Length: quarter}))
			r.w.disconnect()
		}
	})
}

// randomClient is a client with a part of the disk for itself.
type randomClient struct {
	w     *wireClient
	rng   *rand.Rand
	base  uint64
	model []byte
	busy  map[uint64]span   // ranges, in model, that requests in flight use
	want  map[uint64]Errno  // their outcomes
	data  map[uint64][]byte // what READs must bring
}

// run does n steps.
func (r *randomClient) run(n int) error {
	r.busy, r.want, r.data = map[uint64]span{}, map[uint64]Errno{}, map[uint64][]byte{}
	for range n {
		if err := r.step(); err != nil {
			return err
		}
	}
	return r.settle(0)
}

// step sends one request, more or less politely.
func (r *randomClient) step() error {
	s := r.draw()
	for _, other := range r.busy {
		if s.begin < other.end && other.begin < s.end {
			if err := r.settle(0); err != nil {
				return err
			}
			break
		}
	}
	// A client that sends without reading must not wait for answers that its own socket has no room for.
	left := r.rng.IntN(16)
	if r.unread() > 150_000 {
		left = 0
	}
	if err := r.settle(left); err != nil {
		return err
	}
	if r.rng.IntN(10) == 0 {
		return r.ask(s)
	}
	b, cookie := r.request(s)
	r.busy[cookie] = s
	return r.send(b)
}

// unread is how much data is on its way to the client.
func (r *randomClient) unread() (n int) {
	for _, p := range r.data {
		n += len(p)
	}
	return n
}

// draw returns a range of the client's part, more often a short one.
func (r *randomClient) draw() span {
	longest := []int{1, 600, 5000, 70_000, 400_000}[r.rng.IntN(5)]
	n := r.rng.IntN(longest) + 1
	begin := r.rng.IntN(len(r.model) - n + 1)
	return span{uint64(begin), uint64(begin + n)}
}

// request makes a request of one of the kinds that need no more than one answer, and notes what it must do.
func (r *randomClient) request(s span) ([]byte, uint64) {
	n, at := s.end-s.begin, r.base+s.begin
	send := func(want Errno, command Command, flags CommandFlags, offset, length uint64, payload []byte) ([]byte, uint64) {
		b, cookie := r.w.request(command, flags, offset, length, payload)
		r.want[cookie] = want
		return b, cookie
	}
	switch r.rng.IntN(10) {
	case 0, 1, 2:
		p := fill(byte(r.rng.Uint32()), int(n))
		if r.rng.IntN(4) == 0 {
			clear(p)
		}
		copy(r.model[s.begin:], p)
		return send(0, CmdWrite, CommandFlags(r.rng.IntN(2)), at, 0, p)
	case 3, 4, 5:
		b, cookie := send(0, CmdRead, 0, at, n, nil)
		r.data[cookie] = slices.Clone(r.model[s.begin:s.end])
		return b, cookie
	case 6:
		clear(r.model[s.begin:s.end])
		return send(0, CmdWriteZeroes, CommandFlags(r.rng.IntN(4)), at, n, nil)
	case 7:
		return send(0, CmdFlush, 0, 0, 0, nil)
	case 8:
		return send(ENoSpc, CmdWrite, 0, 4*uint64(len(r.model))-n+1, 0, make([]byte, n))
	default:
		return send(EInval, Command(9+r.rng.IntN(100)), 0, at, n, nil)
	}
}

// ask sends a request whose answer leaves something open, and looks into it, while nothing else is in flight.
func (r *randomClient) ask(s span) error {
	if err := r.settle(0); err != nil {
		return err
	}
	if len(r.w.ids) == 0 {
		return r.trim(s)
	}
	b, cookie := r.w.request(CmdBlockStatus, CommandFlags(r.rng.IntN(2))*CmdFlagReqOne, r.base+s.begin, s.end-s.begin, nil)
	if err := r.send(b); err != nil {
		return err
	}
	a, err := r.answer()
	if err != nil || a.header.cookie != cookie || a.errno != 0 {
		return fmt.Errorf("status: %w, %v", err, a)
	}
	at := s.begin
	for _, e := range a.status[r.w.ids[0]] {
		zero := len(bytes.TrimLeft(r.model[at:at+e.length], "\x00")) == 0
		if BlockState(e.state)&StateZero != 0 && !zero {
			return fmt.Errorf("CTX-2: %d bytes at %d are said to be zero", e.length, r.base+at)
		}
		at += e.length
	}
	return nil
}

// trim sends a TRIM and takes over what it made of the range: each byte is what it was, or zero.
func (r *randomClient) trim(s span) error {
	for _, command := range []Command{CmdTrim, CmdRead} {
		b, _ := r.w.request(command, 0, r.base+s.begin, s.end-s.begin, nil)
		if err := r.send(b); err != nil {
			return err
		}
		a, err := r.answer()
		if err != nil || a.errno != 0 {
			return fmt.Errorf("%v: %w, %v", command, err, a)
		}
		for i, v := range a.data {
			if old := &r.model[s.begin+uint64(i)]; v != 0 && v != *old {
				return fmt.Errorf("TR-1: byte %d is %#x, was %#x", r.base+s.begin+uint64(i), v, *old)
			} else {
				*old = v
			}
		}
	}
	return nil
}

// send sends b in random pieces, and lets others run between them.
func (r *randomClient) send(b []byte) error {
	for len(b) > 0 {
		n := len(b)
		if r.rng.IntN(3) == 0 {
			n = r.rng.IntN(min(n, 40_000)) + 1
		}
		if _, err := r.w.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		runtime.Gosched()
	}
	return nil
}

// settle takes answers until at most left requests are in flight, and checks them.
func (r *randomClient) settle(left int) error {
	for len(r.busy) > left {
		a, err := r.answer()
		if err != nil {
			return err
		}
		cookie := a.header.cookie
		if a.errno != r.want[cookie] {
			return fmt.Errorf("%v %v at %d, length %d: %v %s, want %v", a.header.command, a.header.flags, a.header.offset, a.header.length, a.errno, a.text, r.want[cookie])
		}
		if want, ok := r.data[cookie]; ok && !bytes.Equal(want, a.data) {
			return fmt.Errorf("READ at %d, length %d brings other data", a.header.offset, a.header.length)
		}
		delete(r.busy, cookie)
		delete(r.want, cookie)
		delete(r.data, cookie)
	}
	return nil
}

// answer returns the next complete answer.
func (r *randomClient) answer() (*answer, error) {
	for {
		a, err := r.w.next()
		if a != nil || err != nil {
			return a, err
		}
	}
}
