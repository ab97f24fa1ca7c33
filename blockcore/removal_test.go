package blockcore_test

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

func TestSectionsEndWhileANodeCloses(t *testing.T) {
	// A removed node whose disk does not answer holds up the next change, but nobody who ends a section: its flush is held, a section over another node ends, and
	// that node goes on before the flush does.
	c := blocktest.NewContext(t, blockcore.EngineThreads)
	g := blockcore.NewGraphWith(blockcore.GraphOptions{Main: c})
	slow, other := blocktest.NewLayer(blocktest.LayerOptions{Name: "slow"}), blocktest.NewLayer(blocktest.LayerOptions{Name: "other"})
	for name, l := range map[string]*blocktest.Layer{"slow": slow, "other": other} {
		_, err := g.AddNode(blockcore.NodeOptions{Name: name, Driver: l})
		require.NoError(t, err)
	}
	d, err := g.Drain(t.Context(), blockcore.DrainOptions{Nodes: []*blockcore.Node{g.Node("other")}})
	require.NoError(t, err)
	require.Equal(t, 1, other.Still())
	slow.Gate().Close()
	removed := make(chan error)
	go func() { removed <- g.RemoveNode(g.Node("slow")) }()
	slow.Gate().WaitHeld(1)

	d.End()
	for other.Still() > 0 {
		runtime.Gosched()
	}
	require.Zero(t, g.Node("other").Quiesced())
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	err = g.Update(impatient, "add", func(*blockcore.Tx) error { return nil })
	require.EqualError(t, err, "add: waiting for another change of the graph: context canceled")

	slow.Gate().Open()
	require.NoError(t, <-removed)
	require.NoError(t, g.RemoveNode(g.Node("other")))
}

func TestWhatIsGoneIsNotUsed(t *testing.T) {
	// A node that was removed while somebody held a pointer to it is refused by every change, with QEMU's words, and nothing is changed.
	c := blocktest.NewContext(t, blockcore.EngineThreads)
	g := blockcore.NewGraphWith(blockcore.GraphOptions{Main: c})
	add := func(name string) *blockcore.Node {
		n, err := g.AddNode(blockcore.NodeOptions{Name: name, Driver: blocktest.NewLayer(blocktest.LayerOptions{Name: name})})
		require.NoError(t, err)
		return n
	}
	gone, here := add("n"), add("here")
	r, err := g.NewRoot(here, blockcore.RootOptions{Name: "blk"})
	require.NoError(t, err)
	require.NoError(t, g.RemoveNode(gone))
	add("n") // of the same name, and another one
	d, err := g.Drain(t.Context(), blockcore.DrainOptions{All: true})
	require.NoError(t, err)
	defer d.End()
	for name, change := range map[string]func(tx *blockcore.Tx) error{
		"attach":   func(tx *blockcore.Tx) error { _, err := tx.Attach(d, here, blockcore.RoleBacking, gone); return err },
		"set":      func(tx *blockcore.Tx) error { return tx.SetChild(d, r.Edge(), gone) },
		"replace":  func(tx *blockcore.Tx) error { return tx.Replace(d, here, gone) },
		"replaced": func(tx *blockcore.Tx) error { return tx.Replace(d, gone, here) },
		"remove":   func(tx *blockcore.Tx) error { return tx.RemoveNode(gone) },
		"root":     func(tx *blockcore.Tx) error { _, err := tx.NewRoot(gone, blockcore.RootOptions{}); return err },
		"move":     func(tx *blockcore.Tx) error { return tx.SetContext(d, gone, c) },
		"resize":   func(tx *blockcore.Tx) error { return tx.Resize(d, gone, 512) },
		"add": func(tx *blockcore.Tx) error {
			_, err := tx.AddNode(blockcore.NodeOptions{Driver: blocktest.NewLayer(blocktest.LayerOptions{}), Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: gone}}})
			return err
		},
	} {
		require.EqualError(t, g.Update(t.Context(), name, change), "Failed to find node with node-name='n'", name)
	}
	_, err = g.Drain(t.Context(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{gone}})
	require.EqualError(t, err, "drain for test: node n is gone")
	require.Same(t, here, r.Node())
	require.Len(t, g.Nodes(), 2)
}
