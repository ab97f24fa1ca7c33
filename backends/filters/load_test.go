package filters

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
	loadClients = 8
	loadStripe  = 16 << 10 // bytes for each client
	loadRounds  = 40
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
	n := min(512*(1+c.rng.Int64N(8)), loadStripe-off)
	r := blockcore.Range{Offset: c.base + off, Length: n}
	own := c.model[off : off+n]
	k := blockcore.Ticket{Op: "load", Range: r}
	if !c.root.Begin(t, &k) {
		return blockcore.ErrContextClosed
	}
	defer c.root.End(t, &k)
	p := t.Buffers().Get(int(n))
	defer t.Buffers().Put(p)
	switch c.rng.IntN(5) {
	case 0:
		clear(own)
		return c.root.Edge().WriteZeroes(t, r, blockcore.ZeroMayUnmap)
	case 1, 2:
		for i := range own {
			own[i] = byte(c.rng.Uint32())
		}
		copy(p, own)
		return c.root.Edge().Write(t, p, r.Offset, blockcore.WriteFlags(c.rng.IntN(2)))
	}
	if err := c.root.Edge().Read(t, p, r.Offset); err != nil {
		return err
	}
	if !bytes.Equal(p, own) {
		return fmt.Errorf("%v is not what was written", r)
	}
	return nil
}

// Goal: every filter can be put under a client that goes on, and taken away again, and no byte is wrong and nothing is counted in
// flight afterwards; method: clients that verify, and each filter inserted and removed again and again, one at a time and all on one
// another in turn, on both engines.
func TestFiltersComeAndGoUnderLoad(t *testing.T) {
	for _, engine := range []blockcore.EngineKind{blockcore.EngineURing, blockcore.EngineThreads} {
		for _, kind := range kinds {
			t.Run(engine.String()+" "+kind.name, func(t *testing.T) { underLoad(t, engine, kind.make) })
		}
		t.Run(engine.String()+" in turn", func(t *testing.T) {
			round := 0
			underLoad(t, engine, func(t *testing.T) blockcore.Driver {
				round++
				return kinds[round%len(kinds)].make(t)
			})
		})
	}
}

func underLoad(t *testing.T, engine blockcore.EngineKind, filter func(*testing.T) blockcore.Driver) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := &rig{t: t, ctx: blocktest.NewContext(t, engine), graph: blockcore.NewGraph()}
	r.fake = blocktest.NewFake(blocktest.FakeOptions{SizeBytes: loadClients * loadStripe, Limits: blockcore.Limits{Align: 512}})
	r.fake.Add(blocktest.Rule{Op: blocktest.OpWrite, Delay: 50 * time.Microsecond})
	var err error
	r.disk, err = r.graph.AddNode(blockcore.NodeOptions{Name: "disk", Context: r.ctx, Driver: r.fake})
	require.NoError(t, err)
	r.own(r.disk)
	var stop atomic.Bool
	var ops atomic.Int64
	var clients []*client
	for i := range int64(loadClients) {
		c := &client{
			root: r.root, base: i * loadStripe, model: make([]byte, loadStripe),
			rng: rand.New(rand.NewPCG(seed, uint64(i))), stop: &stop, ops: &ops, done: make(chan error, 1),
		}
		clients = append(clients, c)
		r.ctx.Post(func() { r.ctx.Spawn(c) })
	}
	for round := range loadRounds {
		before := ops.Load()
		n := r.insert(fmt.Sprintf("filter%d", round), filter(t))
		require.Eventually(t, func() bool { return ops.Load() > before+loadClients || len(clients[0].done) > 0 }, 10*time.Second, 10*time.Microsecond)
		if round%2 == 1 { // so at times there are two
			r.remove(n)
			r.remove(r.graph.Node(fmt.Sprintf("filter%d", round-1)))
		}
	}
	stop.Store(true)
	for i, c := range clients {
		require.NoError(t, <-c.done, "client %d, seed %d", i, seed)
		require.Equal(t, c.model, r.fake.Contents(blockcore.Range{Offset: c.base, Length: loadStripe}), "client %d, seed %d", i, seed)
	}
	require.Equal(t, []*blockcore.Node{r.disk}, r.graph.Nodes())
	r.requireStill()
	require.Zero(t, r.root.Quiesced())
}

// insert puts a filter between the owner and what it uses.
func (r *rig) insert(name string, d blockcore.Driver) *blockcore.Node {
	r.t.Helper()
	below := r.root.Node()
	var n *blockcore.Node
	require.NoError(r.t, r.drained(func(tx *blockcore.Tx, d2 *blockcore.Drained) (err error) {
		n, err = tx.AddNode(blockcore.NodeOptions{
			Name: name, Driver: d, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: below}},
		})
		if err != nil {
			return err
		}
		return tx.Replace(d2, below, n)
	}, below))
	return n
}

// remove takes a filter away, whoever is above it.
func (r *rig) remove(n *blockcore.Node) {
	r.t.Helper()
	below := n.Children()[0].Node()
	require.NoError(r.t, r.drained(func(tx *blockcore.Tx, d *blockcore.Drained) error {
		if err := tx.Replace(d, n, below); err != nil {
			return err
		}
		return tx.RemoveNode(n)
	}, below))
}
