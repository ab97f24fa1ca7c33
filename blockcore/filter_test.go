package blockcore

import (
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// resizable is a memory that can be resized.
type resizable struct{ *memory }

func (r resizable) Resize(t *Task, sizeBytes int64) error {
	data := make([]byte, sizeBytes)
	copy(data, r.data)
	r.data = data
	return nil
}

// onFilter puts a filter on top of a driver.
func onFilter(t *testing.T, c *AioContext, d Driver) (g *Graph, child, filter *Node) {
	t.Helper()
	g = NewGraph()
	child, err := g.AddNode(NodeOptions{Name: "child", Context: c, Driver: d})
	require.NoError(t, err)
	filter, err = g.AddNode(NodeOptions{Name: "filter", Driver: &Filter{}, Children: []ChildOptions{{RoleFile, child}}})
	require.NoError(t, err)
	return g, child, filter
}

func TestFilterShowsItsChild(t *testing.T) {
	// What a filter says of itself is what its child says, besides being a filter that takes any request, and follows a child that is exchanged; a filter
	// without a child is refused.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(8192, Limits{Align: 512, Preferred: 4096, TransferMax: 4096})
	m.features = Features{FastZero: true, Rotational: true}
	g, _, filter := onFilter(t, c, m)
	require.Equal(t, Limits{Align: 1, Preferred: 4096}, filter.Limits(), "the child's edge widens and splits")
	require.Equal(t, Features{FastZero: true, Rotational: true, Filter: true}, filter.Features())
	require.Equal(t, int64(8192), filter.Size())
	other, err := g.AddNode(NodeOptions{Name: "other", Context: c, Driver: bare{newMemory(1024, Limits{Align: 1})}})
	require.NoError(t, err)
	d, err := g.Drain(context.Background(), DrainOptions{Nodes: []*Node{filter}})
	require.NoError(t, err)
	defer d.End()
	require.NoError(t, g.Update(context.Background(), "exchange", func(tx *Tx) error {
		return tx.SetChild(d, filter.Children()[0], other)
	}))
	require.Equal(t, Features{ReadOnly: true, Filter: true}, filter.Features())
	require.Equal(t, int64(1024), filter.Size())
	require.False(t, filter.Writable())
	_, err = g.AddNode(NodeOptions{Name: "bare", Context: c, Driver: &Filter{}})
	require.EqualError(t, err, `node bare: A block device must be specified for "file"`)
}

func TestResizeThroughAFilter(t *testing.T) {
	// A filter is resized with its child, if that can be, may be, and has no other user who is not drained or minds: a table of users.
	c := newTestContext(t, ContextOptions{})
	table := []struct {
		name  string
		child func(*memory) Driver
		other *RootOptions // of the child
		drain bool         // the child too
		err   error
		says  string
	}{
		{name: "alone", child: func(m *memory) Driver { return resizable{m} }},
		{name: "fixed", child: func(m *memory) Driver { return m }, err: syscall.ENOTSUP},
		{name: "another user", child: func(m *memory) Driver { return resizable{m} }, other: &RootOptions{Name: "other"}, err: syscall.EBUSY},
		{name: "another user drained", child: func(m *memory) Driver { return resizable{m} }, other: &RootOptions{Name: "other"}, drain: true},
		{
			name: "another user minds", child: func(m *memory) Driver { return resizable{m} }, drain: true,
			other: &RootOptions{Name: "other", Unshared: PermResize}, says: "Permission conflict on node 'child'",
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			g, child, filter := onFilter(t, c, row.child(newMemory(4096, Limits{Align: 1})))
			if row.other != nil {
				_, err := g.NewRoot(child, *row.other)
				require.NoError(t, err)
			}
			nodes := []*Node{filter}
			if row.drain {
				nodes = append(nodes, child)
			}
			d, err := g.Drain(context.Background(), DrainOptions{Nodes: nodes})
			require.NoError(t, err)
			defer d.End()
			err = g.Update(context.Background(), "resize", func(tx *Tx) error { return tx.Resize(d, filter, 10000) })
			switch {
			case row.err != nil:
				require.ErrorIs(t, err, row.err)
			case row.says != "":
				require.ErrorContains(t, err, row.says)
			default:
				require.NoError(t, err)
				require.Equal(t, int64(10000), filter.Size())
			}
		})
	}
}

// watcher notes the sizes that it is told of.
type watcher struct{ sizes []int64 }

func (w *watcher) Quiesce()                {}
func (w *watcher) Busy() bool              { return false }
func (w *watcher) Resume()                 {}
func (w *watcher) Resized(sizeBytes int64) { w.sizes = append(w.sizes, sizeBytes) }

// halfway resizes its child and then fails.
type halfway struct{ Filter }

func (h *halfway) Resize(t *Task, sizeBytes int64) error {
	return errors.Join(h.File().Resize(t, sizeBytes), syscall.EIO)
}

func TestResizeIsToldToWhoeverSeesIt(t *testing.T) {
	// The owner of a child that is resized through a filter is told of the new size although the section of the change is not his: his own is somebody
	// else's. So is the filter's owner; also where the change fails halfway. Who sees the same size as before is told nothing.
	c := newTestContext(t, ContextOptions{})
	g, child, filter := onFilter(t, c, resizable{newMemory(4096, Limits{Align: 1})})
	failing, err := g.AddNode(NodeOptions{Name: "failing", Driver: &halfway{}, Children: []ChildOptions{{RoleFile, child}}})
	require.NoError(t, err)
	apart, err := g.AddNode(NodeOptions{Name: "apart", Context: c, Driver: newMemory(4096, Limits{Align: 1})})
	require.NoError(t, err)
	var watchers []*watcher
	for _, n := range []*Node{child, filter, failing, apart} {
		w := &watcher{}
		watchers = append(watchers, w)
		_, err := g.NewRoot(n, RootOptions{Name: n.Name(), Owner: w})
		require.NoError(t, err)
	}
	others, err := g.Drain(t.Context(), DrainOptions{Why: "somebody else", Nodes: []*Node{child}})
	require.NoError(t, err)
	defer others.End()
	d, err := g.Drain(t.Context(), DrainOptions{Nodes: []*Node{filter, failing, apart}})
	require.NoError(t, err)
	defer d.End()
	require.NoError(t, g.Update(t.Context(), "resize", func(tx *Tx) error { return tx.Resize(d, filter, 10000) }))
	require.ErrorIs(t, g.Update(t.Context(), "resize", func(tx *Tx) error { return tx.Resize(d, failing, 5000) }), syscall.EIO)
	for _, w := range watchers[:3] {
		require.Equal(t, []int64{10000, 5000}, w.sizes)
	}
	require.Empty(t, watchers[3].sizes)
}

// unchanging takes the right to write what is there already.
type unchanging struct{ Filter }

func (u *unchanging) ChildPermissions(role Role, perm, shared Permissions) (takes, shares Permissions) {
	return perm | PermWriteUnchanged, shared
}

func TestWriteUnchanged(t *testing.T) {
	// The right to write what is there already is enough for such writes and zeroes, and for no others; what is read-only does not
	// give it.
	c := newTestContext(t, ContextOptions{})
	g, child, _ := onFilter(t, c, newMemory(4096, Limits{Align: 1}))
	u := &unchanging{}
	_, err := g.AddNode(NodeOptions{Name: "unchanging", Driver: u, Children: []ChildOptions{{RoleFile, child}}})
	require.NoError(t, err)
	write := func(flags WriteFlags) error {
		return c.Do(func(t *Task) error {
			p := t.Buffers().Get(512)
			defer t.Buffers().Put(p)
			return u.File().Write(t, p, 0, flags)
		})
	}
	zero := func(flags ZeroFlags) error {
		return c.Do(func(t *Task) error { return u.File().WriteZeroes(t, Range{0, 512}, flags) })
	}
	require.ErrorIs(t, write(0), syscall.EPERM)
	require.ErrorIs(t, zero(0), syscall.EPERM)
	require.NoError(t, write(WriteUnchanged))
	require.NoError(t, zero(ZeroUnchanged))
	readOnly, err := g.AddNode(NodeOptions{Name: "read-only", Context: c, Driver: bare{newMemory(4096, Limits{Align: 1})}})
	require.NoError(t, err)
	_, err = g.AddNode(NodeOptions{Name: "refused", Driver: &unchanging{}, Children: []ChildOptions{{RoleFile, readOnly}}})
	require.EqualError(t, err, "Block node is read-only: node 'read-only' is used for writing by node 'refused'")
}
