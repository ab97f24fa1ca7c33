package raw

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

const (
	loadClients = 6
	loadStripe  = 32 << 10 // bytes for each client
	loadRounds  = 60
)

// client works on a stripe of its own and compares what it reads with what it has written.
type client struct {
	root  *blockcore.Root
	base  int64
	model []byte
	rng   *rand.Rand
	stop  *atomic.Bool
	ops   *atomic.Int64
	done  chan error
}

// Run is the life of the client, as one Task.
func (c *client) Run(t *blockcore.Task) {
	var err error
	for err == nil && !c.stop.Load() {
		if err = c.request(t); err == nil {
			c.ops.Add(1)
		}
		t.Yield()
	}
	c.done <- err
}

func (c *client) request(t *blockcore.Task) error {
	off := c.rng.Int64N(loadStripe/512) * 512
	n := min(512*(1+c.rng.Int64N(16)), loadStripe-off)
	r := blockcore.Range{Offset: c.base + off, Length: n}
	own := c.model[off : off+n]
	k := blockcore.Ticket{Op: "load", Range: r}
	if !c.root.Begin(t, &k) {
		return blockcore.ErrContextClosed
	}
	defer c.root.End(t, &k)
	p := t.Buffers().Get(int(n))
	defer t.Buffers().Put(p)
	switch c.rng.IntN(6) {
	case 0:
		clear(own)
		return c.root.Edge().WriteZeroes(t, r, blockcore.ZeroMayUnmap)
	case 1, 2:
		for i := range own {
			own[i] = byte(c.rng.Uint32())
		}
		copy(p, own)
		return c.root.Edge().Write(t, p, r.Offset, 0)
	}
	if err := c.root.Edge().Read(t, p, r.Offset); err != nil {
		return err
	}
	if !bytes.Equal(p, own) {
		return fmt.Errorf("%v is not what was written", r)
	}
	return nil
}

// Goal: a disk is reopened in every way and resized under clients that go on, and no byte is wrong; what is refused, since they write,
// disturbs them no more. Method: clients that verify, and a random way or size at a time, on both engines.
func TestReopenAndResizeUnderLoad(t *testing.T) {
	for _, engine := range []blockcore.EngineKind{blockcore.EngineURing, blockcore.EngineThreads} {
		t.Run(engine.String(), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 99))
			path := makeFile(t, t.TempDir(), loadClients*loadStripe)
			d := &disk{t: t, ctx: blocktest.NewContext(t, engine), graph: blockcore.NewGraph()}
			d.node, d.f = d.add("disk", Options{Path: path})
			root, err := d.graph.NewRoot(d.node, blockcore.RootOptions{Name: "clients", Writable: true})
			require.NoError(t, err)
			defer root.Close()
			var stop atomic.Bool
			var ops atomic.Int64
			var clients []*client
			for i := range int64(loadClients) {
				c := &client{
					root: root, base: i * loadStripe, model: make([]byte, loadStripe),
					rng: rand.New(rand.NewPCG(seed, uint64(i))), stop: &stop, ops: &ops, done: make(chan error, 1),
				}
				clients = append(clients, c)
				d.ctx.Post(func() { d.ctx.Spawn(c) })
			}
			for range loadRounds {
				before := ops.Load()
				switch rng.IntN(3) {
				case 0:
					require.NoError(t, d.resize(loadClients*loadStripe+4096*rng.Int64N(100)))
				case 1:
					require.ErrorContains(t, d.reopen(Options{Path: path, ReadOnly: true}), "Block node is read-only")
				default:
					o := Options{Path: path, Cache: Cache{Direct: rng.IntN(2) == 0, NoFlush: rng.IntN(2) == 0}}
					if rng.IntN(2) == 0 {
						o.Discard, o.DetectZeroes = DiscardUnmap, DetectUnmap
					}
					o.Map = []Map{MapOn, MapOff, MapAlways, MapAlways}[rng.IntN(4)]
					require.NoError(t, d.reopen(o))
				}
				require.Eventually(t, func() bool { return ops.Load() > before+loadClients || len(clients[0].done) > 0 }, 10*time.Second, 10*time.Microsecond)
			}
			stop.Store(true)
			for i, c := range clients {
				require.NoError(t, <-c.done, "client %d, seed %d", i, seed)
				require.Equal(t, c.model, d.contents(c.base, loadStripe), "client %d, seed %d", i, seed)
			}
			require.Zero(t, root.InFlight())
			require.Zero(t, d.node.InFlight())
			require.Zero(t, d.node.Quiesced())
		})
	}
}

// contents returns what the disk has.
func (d *disk) contents(off, n int64) []byte {
	d.t.Helper()
	got := make([]byte, n)
	require.NoError(d.t, d.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(int(n))
		defer t.Buffers().Put(p)
		err := d.f.ReadAt(t, p, off)
		copy(got, p)
		return err
	}))
	return got
}
