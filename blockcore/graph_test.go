package blockcore

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGraph(t *testing.T) {
	// Nodes come and go under names of their own, not while they are used, with QEMU's messages: a node with two owners is added,
	// doubled, removed too early and removed.
	c := newTestContext(t, ContextOptions{})
	g := NewGraph()
	m := newMemory(4096, Limits{Align: 512, Preferred: 4096})
	m.features.Rotational = true
	m.log = true
	n, err := g.AddNode(NodeOptions{Name: "disk0", Context: c, Driver: m})
	require.NoError(t, err)
	require.Equal(t, "disk0", n.Name())
	require.Equal(t, int64(4096), n.Size())
	require.Equal(t, m.limits, n.Limits())
	require.Equal(t, m.features, n.Features())
	require.Same(t, c, n.Context())
	_, err = g.AddNode(NodeOptions{Name: "disk0", Context: c, Driver: newMemory(0, Limits{Align: 1})})
	require.EqualError(t, err, "Duplicate nodes with node-name='disk0'")
	require.Equal(t, []*Node{n}, g.Nodes())

	first, err := g.NewRoot(n, RootOptions{Name: "first", Writable: true})
	require.NoError(t, err)
	second, err := g.NewRoot(n, RootOptions{Name: "second"})
	require.NoError(t, err)
	require.Same(t, n, first.Node())
	require.Same(t, c, first.Context())
	for _, r := range []*Root{first, second} {
		require.EqualError(t, g.RemoveNode(n), "Node disk0 is in use")
		require.False(t, m.closed)
		r.Close()
	}
	require.NoError(t, g.RemoveNode(n))
	require.Equal(t, []string{"flush 0+0", "close"}, m.calls)
	require.Empty(t, g.Nodes())
	_, err = g.AddNode(NodeOptions{Name: "disk0", Context: c, Driver: newMemory(0, Limits{Align: 1})})
	require.NoError(t, err)
}

func TestRemoveNodeTellsAllErrors(t *testing.T) {
	// A node that can be neither flushed nor closed is gone all the same, and the error says both; one that is read-only is not
	// flushed.
	c := newTestContext(t, ContextOptions{})
	g := NewGraph()
	m := newMemory(4096, Limits{Align: 1})
	closing := errors.New("cannot close")
	m.fail = func(op string) error {
		if op == "close" {
			return closing
		}
		return syscall.EIO
	}
	m.log = true
	n, err := g.AddNode(NodeOptions{Name: "n", Context: c, Driver: m})
	require.NoError(t, err)
	err = g.RemoveNode(n)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, err, closing)
	require.ErrorContains(t, err, "flush node n before closing")
	require.Empty(t, g.Nodes())

	m.features.ReadOnly = true
	m.calls = nil
	n, err = g.AddNode(NodeOptions{Name: "n", Context: c, Driver: m})
	require.NoError(t, err)
	require.ErrorIs(t, g.RemoveNode(n), closing)
	require.Equal(t, []string{"close"}, m.calls)
}

func TestDriverLimitsAreChecked(t *testing.T) {
	// A driver whose limits make no sense is refused before it does harm: a table of limits and sizes.
	c := newTestContext(t, ContextOptions{})
	table := []struct {
		limits Limits
		size   int64
		want   string // "" = accepted
	}{
		{Limits{Align: 1}, 1, ""},
		{Limits{Align: 65536, TransferMax: 1 << 20}, 1 << 20, ""},
		{Limits{Align: 0}, 512, "alignment of 0 bytes is not a power of two up to 65536"},
		{Limits{Align: -512}, 512, "alignment of -512 bytes is not a power of two up to 65536"},
		{Limits{Align: 1000}, 4000, "alignment of 1000 bytes is not a power of two up to 65536"},
		{Limits{Align: 1 << 17}, 1 << 17, "alignment of 131072 bytes is not a power of two up to 65536"},
		{Limits{Align: 512}, 1000, "size of 1000 bytes is not a multiple of its alignment 512"},
		{Limits{Align: 512, TransferMax: 1000}, 1024, "longest transfer of 1000 bytes is not a multiple of its alignment 512"},
		{Limits{Align: 512, TransferMax: -512}, 1024, "longest transfer of -512 bytes is not a multiple of its alignment 512"},
	}
	for _, row := range table {
		_, err := NewGraph().AddNode(NodeOptions{Name: "n", Context: c, Driver: &boundless{size: row.size, limits: row.limits}})
		if row.want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, "node n: "+row.want)
	}
}

func TestNodesThatGoTogetherKnowIt(t *testing.T) {
	// What a node writes when it is closed goes to a node that is going to be closed: that one knows it already, and does not wait for a server for ever. Method: a driver that looks at the
	// node below while it is closed; that node goes with it, or stays.
	c := newTestContext(t, ContextOptions{})
	for _, implicit := range []bool{true, false} {
		g := NewGraph()
		below, err := g.AddNode(NodeOptions{Name: "below", Context: c, Driver: newMemory(4096, Limits{Align: 1}), Implicit: implicit})
		require.NoError(t, err)
		require.False(t, below.Closing())
		m := newMemory(4096, Limits{Align: 1})
		var saw []bool
		m.fail = func(op string) error {
			if op == "close" {
				saw = append(saw, below.Closing())
			}
			return nil
		}
		above, err := g.AddNode(NodeOptions{Name: "above", Context: c, Driver: m, Children: []ChildOptions{{Node: below, Role: RoleFile}}})
		require.NoError(t, err)
		require.NoError(t, g.RemoveNode(above))
		require.Equal(t, []bool{implicit}, saw)
		require.Equal(t, implicit, below.Closing())
		if !implicit {
			require.NoError(t, g.RemoveNode(below))
		}
	}
}
