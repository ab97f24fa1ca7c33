package filters

import (
	"fmt"
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
	load := blocktest.NewLoad(r.ctx, r.root, blocktest.LoadOptions{
		Clients: loadClients, StripeBytes: loadStripe, RequestMaxBytes: 4096, FUA: true, Seed: seed,
	})
	for round := range loadRounds {
		var n *blockcore.Node
		load.During(t, func() { n = r.insert(fmt.Sprintf("filter%d", round), filter(t)) })
		if round%2 == 1 { // so at times there are two
			r.remove(n)
			r.remove(r.graph.Node(fmt.Sprintf("filter%d", round-1)))
		}
	}
	load.Stop(t, r.fake.Contents)
	require.Equal(t, []*blockcore.Node{r.disk}, r.graph.Nodes())
	r.requireStill()
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
