package raw

import (
	"math/rand/v2"
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
			load := blocktest.NewLoad(d.ctx, root, blocktest.LoadOptions{Clients: loadClients, StripeBytes: loadStripe, RequestMaxBytes: 8192, Seed: seed})
			for range loadRounds {
				load.During(t, func() { d.changeAtRandom(rng, path) })
			}
			load.Stop(t, d.contents)
			require.Zero(t, d.node.InFlight())
			require.Zero(t, d.node.Quiesced())
		})
	}
}

// changeAtRandom resizes or reopens the disk.
func (d *disk) changeAtRandom(rng *rand.Rand, path string) {
	d.t.Helper()
	switch rng.IntN(3) {
	case 0:
		require.NoError(d.t, d.resize(loadClients*loadStripe+4096*rng.Int64N(100)))
	case 1:
		require.ErrorContains(d.t, d.reopen(Options{Path: path, ReadOnly: true}), "Block node is read-only")
	default:
		o := Options{Path: path, Cache: Cache{Direct: rng.IntN(2) == 0, NoFlush: rng.IntN(2) == 0}}
		if rng.IntN(2) == 0 {
			o.Discard, o.DetectZeroes = DiscardUnmap, DetectUnmap
		}
		o.Map = []Map{MapOn, MapOff, MapAlways, MapAlways}[rng.IntN(4)]
		require.NoError(d.t, d.reopen(o))
	}
}

// contents returns what the disk has.
func (d *disk) contents(r blockcore.Range) []byte {
	d.t.Helper()
	got := make([]byte, r.Length)
	require.NoError(d.t, d.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(int(r.Length))
		defer t.Buffers().Put(p)
		err := d.f.ReadAt(t, p, r.Offset)
		copy(got, p)
		return err
	}))
	return got
}
