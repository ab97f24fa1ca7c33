package blocktest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// LoadOptions describe clients of a disk that is changed under them.
type LoadOptions struct {
	Clients         int
	StripeBytes     int64 // for each client; the disk has room for all, from its beginning
	RequestMaxBytes int64 // of one request; a multiple of 512, as all of them are
	FUA             bool  // every other write is on stable storage when it ends
	Seed            uint64
}

// Load is clients that verify: each works on a stripe of its own and compares what it reads with what it has written.
type Load struct {
	// Immutable.
	o       LoadOptions
	root    *blockcore.Root
	clients []*loadClient

	// Safe from anywhere.
	stop atomic.Bool
	ops  atomic.Int64
}

// NewLoad starts clients on the context that the Root has now. They are Tasks of it.
func NewLoad(c *blockcore.AioContext, root *blockcore.Root, o LoadOptions) *Load {
	l := &Load{o: o, root: root}
	for i := range int64(o.Clients) {
		client := &loadClient{
			load: l, base: i * o.StripeBytes, model: make([]byte, o.StripeBytes),
			rng: rand.New(rand.NewPCG(o.Seed, uint64(i))), done: make(chan error, 1),
		}
		l.clients = append(l.clients, client)
		c.Post(func() { c.Spawn(client) })
	}
	return l
}

// During makes a change, and waits until the clients have gone on behind it.
func (l *Load) During(t testing.TB, change func()) {
	t.Helper()
	before := l.ops.Load()
	change()
	goesOn := func() bool { return l.ops.Load() > before+int64(l.o.Clients) || len(l.clients[0].done) > 0 }
	require.Eventually(t, goesOn, time.Minute, 10*time.Microsecond)
}

// Stop ends the clients, and compares the disk with what they have written. Nothing is in flight afterwards.
func (l *Load) Stop(t testing.TB, contents func(blockcore.Range) []byte) {
	t.Helper()
	l.stop.Store(true)
	for i, c := range l.clients {
		require.NoError(t, <-c.done, "client %d, seed %d", i, l.o.Seed)
		require.Equal(t, c.model, contents(blockcore.Range{Offset: c.base, Length: l.o.StripeBytes}), "client %d, seed %d", i, l.o.Seed)
	}
	require.Zero(t, l.root.InFlight())
	require.Zero(t, l.root.Quiesced())
}

// loadClient is one client.
type loadClient struct {
	// Immutable.
	load *Load
	base int64
	done chan error

	// Owned by the context. Stop has it once the Task has ended.
	model []byte
	rng   *rand.Rand
}

// Run is the life of the client, as one Task.
func (c *loadClient) Run(t *blockcore.Task) {
	var err error
	for err == nil && !c.load.stop.Load() {
		if err = c.request(t); err == nil {
			c.load.ops.Add(1)
		}
		t.Yield()
	}
	c.done <- err
}

func (c *loadClient) request(t *blockcore.Task) error {
	o, root := &c.load.o, c.load.root
	off := c.rng.Int64N(o.StripeBytes/512) * 512
	n := min(512*(1+c.rng.Int64N(o.RequestMaxBytes/512)), o.StripeBytes-off)
	r := blockcore.Range{Offset: c.base + off, Length: n}
	own := c.model[off : off+n]
	k := blockcore.Ticket{Op: "load", Range: r}
	if !root.Begin(t, &k) {
		return blockcore.ErrContextClosed
	}
	defer root.End(t, &k)
	p := t.Buffers().Get(int(n))
	defer t.Buffers().Put(p)
	switch c.rng.IntN(5) {
	case 0:
		clear(own)
		return root.Edge().WriteZeroes(t, r, blockcore.ZeroMayUnmap)
	case 1, 2:
		for i := range own {
			own[i] = byte(c.rng.Uint32())
		}
		copy(p, own)
		return root.Edge().Write(t, p, r.Offset, c.flags())
	}
	if err := root.Edge().Read(t, p, r.Offset); err != nil {
		return err
	}
	if !bytes.Equal(p, own) {
		return fmt.Errorf("%v is not what was written", r)
	}
	return nil
}

func (c *loadClient) flags() blockcore.WriteFlags {
	if c.load.o.FUA && c.rng.IntN(2) == 0 {
		return blockcore.WriteFUA
	}
	return 0
}
