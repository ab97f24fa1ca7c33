package blockcore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// storm is a graph under clients that never pause and operators who change it all the time.
//
//	blk0, blk1 -> top -> filter -> base     side -> base     loose nodes come and go
type storm struct {
	t     *testing.T
	graph *blockcore.Graph
	loops []*blockcore.AioContext
	roots []*blockcore.Root

	stop atomic.Bool
	done atomic.Int64
	wg   sync.WaitGroup
}

// client makes one request after the other, wherever its Root is.
type client struct {
	s      *storm
	root   *blockcore.Root
	ticket blockcore.Ticket
}

func (c *client) Run(t *blockcore.Task) {
	for !c.s.stop.Load() {
		if !c.root.Begin(t, &c.ticket) {
			to := c.root.Context()
			to.Post(func() { to.Spawn(c) })
			return
		}
		if c.root.Context() != t.Context() {
			c.s.t.Error("a request was admitted on a loop that the Root has left")
		}
		p := t.Buffers().Get(512)
		if err := c.root.Edge().Read(t, p, 0); err != nil {
			c.s.t.Error(err)
		}
		t.Buffers().Put(p)
		c.root.End(t, &c.ticket)
		c.s.done.Add(1)
		t.Yield()
	}
	c.s.wg.Done()
}

func (s *storm) layer(name string) *blocktest.Layer {
	return blocktest.NewLayer(blocktest.LayerOptions{Name: name})
}

// operate does one thing at random.
func (s *storm) operate(rng *rand.Rand, id, turn int) error {
	ctx, g := context.Background(), s.graph
	node := func() *blockcore.Node { return g.Node([]string{"top", "filter", "base", "side"}[rng.IntN(4)]) }
	switch rng.IntN(8) {
	case 0, 1:
		d, err := g.Drain(ctx, blockcore.DrainOptions{Nodes: []*blockcore.Node{node(), node()}})
		if err != nil {
			return err
		}
		go d.End()
		d.End()
	case 2:
		d, err := g.Drain(ctx, blockcore.DrainOptions{All: true, Roots: s.roots[:1]})
		if err != nil {
			return err
		}
		defer d.End()
		// The base may be flushed by a loose node that is closed.
		for _, name := range []string{"top", "filter", "side"} {
			if g.Node(name).InFlight() != 0 {
				return fmt.Errorf("node %s works in a drain of everything", name)
			}
		}
	case 3:
		return g.Move(ctx, node(), s.loops[rng.IntN(2)])
	case 4: // a drain that has no time
		d, err := g.Drain(ctx, blockcore.DrainOptions{Nodes: []*blockcore.Node{node()}, Max: time.Duration(rng.IntN(50)) * time.Microsecond})
		if err == nil {
			d.End()
		}
	case 5: // the filter goes out of the way, or comes back; by the loop itself or by the control plane
		o := blockcore.DrainOptions{Why: "filter", Nodes: []*blockcore.Node{g.Node("top"), g.Node("filter"), g.Node("base")}}
		if o.Brief = rng.IntN(3) > 0; rng.IntN(2) == 0 {
			o.Flush = o.Nodes[2:]
		}
		return g.Change(ctx, o, func(tx *blockcore.Tx, d *blockcore.Drained) error {
			e, to := g.Node("top").Children()[0], g.Node("filter")
			if e.Node() == to {
				to = g.Node("base")
			}
			return tx.SetChild(d, e, to)
		})
	case 6: // a node and its owner come and go
		name := fmt.Sprintf("loose%d-%d", id, turn)
		var r *blockcore.Root
		err := g.Update(ctx, "come", func(tx *blockcore.Tx) error {
			n, err := tx.AddNode(blockcore.NodeOptions{Name: name, Driver: s.layer(name), Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: g.Node("base")}}})
			if err == nil {
				r, err = tx.NewRoot(n, blockcore.RootOptions{Name: name, Movable: true})
			}
			return err
		})
		if err != nil {
			return err
		}
		r.Close()
		return g.RemoveNode(g.Node(name))
	case 7:
		refused := errors.New("refused")
		err := g.Update(ctx, "refused", func(tx *blockcore.Tx) error {
			name := fmt.Sprintf("never%d-%d", id, turn)
			_, err := tx.AddNode(blockcore.NodeOptions{Name: name, Driver: s.layer(name), Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: node()}}})
			return errors.Join(refused, err)
		})
		if !errors.Is(err, refused) {
			return err
		}
	}
	return nil
}

func TestEverythingAtOnce(t *testing.T) {
	// Nothing is lost and nothing runs where it must not, whatever meets: four clients never pause, and four operators drain, move, replace, add,
	// remove and fail at random at the same time. At the end every request has ended and every count is zero.
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &storm{t: t, loops: []*blockcore.AioContext{blocktest.NewContext(t, blockcore.EngineURing), blocktest.NewContext(t, blockcore.EngineThreads)}}
	s.graph = blockcore.NewGraphWith(blockcore.GraphOptions{Main: s.loops[0]})
	for _, n := range []struct{ name, child string }{{"base", ""}, {"filter", "base"}, {"top", "filter"}, {"side", "base"}} {
		o := blockcore.NodeOptions{Name: n.name, Driver: s.layer(n.name)}
		if n.child != "" {
			o.Children = []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: s.graph.Node(n.child)}}
		}
		_, err := s.graph.AddNode(o)
		require.NoError(t, err)
	}
	for _, name := range []string{"top", "top", "side"} {
		r, err := s.graph.NewRoot(s.graph.Node(name), blockcore.RootOptions{Name: name, Movable: true})
		require.NoError(t, err)
		s.roots = append(s.roots, r)
	}
	for i := range 4 {
		s.wg.Add(1)
		c := &client{s: s, root: s.roots[i%len(s.roots)]}
		s.loops[0].Post(func() { s.loops[0].Spawn(c) })
	}
	var operators sync.WaitGroup
	for id := range 4 {
		rng := rand.New(rand.NewPCG(seed, uint64(id)))
		operators.Go(func() {
			for turn := range 200 {
				if err := s.operate(rng, id, turn); err != nil {
					t.Errorf("seed %d: operator %d, turn %d: %v", seed, id, turn, err)
					return
				}
			}
		})
	}
	operators.Wait()
	s.stop.Store(true)
	s.wg.Wait()
	d, err := s.graph.Drain(t.Context(), blockcore.DrainOptions{All: true})
	require.NoError(t, err)
	d.End()
	for _, n := range s.graph.Nodes() {
		require.Zero(t, n.InFlight(), n.Name())
		require.Zero(t, n.Quiesced(), n.Name())
		require.Same(t, s.graph.Node("base").Context(), n.Context())
	}
	for _, r := range s.roots {
		require.Zero(t, r.InFlight())
		require.Zero(t, r.Quiesced())
		r.Close()
	}
	require.Len(t, s.graph.Nodes(), 4)
	require.Empty(t, s.graph.Sections())
	require.Positive(t, s.done.Load())
	t.Logf("seed %d, %d requests", seed, s.done.Load())
}
