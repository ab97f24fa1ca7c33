package blockcore

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// reopenable is a memory whose features can be exchanged. It notes what becomes of each attempt.
type reopenable struct {
	*memory
	refuse error
	story  *[]string
}

func (r *reopenable) PrepareReopen(t *Task, options any) (commit, abort func(*Task), err error) {
	if r.refuse != nil {
		return nil, nil, r.refuse
	}
	before := r.features
	r.features = options.(Features)
	*r.story = append(*r.story, "prepare")
	return func(*Task) { *r.story = append(*r.story, "commit") },
		func(*Task) { r.features = before; *r.story = append(*r.story, "abort") }, nil
}

func TestReopen(t *testing.T) {
	// Nodes are reopened all or none: a change of two nodes stands, or fails because a node refuses, because the change itself does, or
	// because an owner goes on writing to what would be read-only. The facts of the nodes go with it.
	c := newTestContext(t, ContextOptions{})
	table := []struct {
		name     string
		refuse   error // of the second node
		fail     error // of the change
		writable bool  // the owner of the first node writes
		err      string
		story    []string
	}{
		{name: "stands", story: []string{"prepare", "prepare", "commit", "commit"}},
		{name: "a node refuses", refuse: syscall.EBUSY, err: "reopen node n1: device or resource busy", story: []string{"prepare", "abort"}},
		{name: "the change fails", fail: errors.New("no"), err: "no", story: []string{"prepare", "prepare", "abort", "abort"}},
		{
			name: "somebody writes", writable: true, err: "Block node is read-only: node 'n0' is used for writing by block device 'owner'",
			story: []string{"prepare", "prepare", "abort", "abort"},
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			g := NewGraph()
			var story []string
			var nodes []*Node
			for i := range 2 {
				r := &reopenable{memory: newMemory(4096, Limits{Align: 1}), story: &story}
				if i == 1 {
					r.refuse = row.refuse
				}
				n, err := g.AddNode(NodeOptions{Name: fmt.Sprintf("n%d", i), Context: c, Driver: r})
				require.NoError(t, err)
				nodes = append(nodes, n)
			}
			owner, err := g.NewRoot(nodes[0], RootOptions{Name: "owner", Writable: row.writable})
			require.NoError(t, err)
			defer owner.Close()
			d, err := g.Drain(context.Background(), DrainOptions{Why: "test", Nodes: nodes})
			require.NoError(t, err)
			defer d.End()
			err = g.Update(context.Background(), "reopen", func(tx *Tx) error {
				for _, n := range nodes {
					if err := tx.Reopen(d, n, Features{ReadOnly: true}); err != nil {
						return err
					}
				}
				return row.fail
			})
			if row.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, row.err)
			}
			require.Equal(t, row.story, story)
			require.Equal(t, row.err != "", nodes[0].Writable())
		})
	}
}

func TestReopenRefusals(t *testing.T) {
	// A driver with fixed options is not reopened, and none twice in one change: both leave the node as it was.
	c := newTestContext(t, ContextOptions{})
	g := NewGraph()
	fixed, err := g.AddNode(NodeOptions{Name: "fixed", Context: c, Driver: newMemory(4096, Limits{Align: 1})})
	require.NoError(t, err)
	var story []string
	twice, err := g.AddNode(NodeOptions{Name: "twice", Context: c, Driver: &reopenable{memory: newMemory(4096, Limits{Align: 1}), story: &story}})
	require.NoError(t, err)
	d, err := g.Drain(context.Background(), DrainOptions{Nodes: []*Node{fixed, twice}})
	require.NoError(t, err)
	defer d.End()
	err = g.Update(context.Background(), "reopen", func(tx *Tx) error { return tx.Reopen(d, fixed, Features{}) })
	require.ErrorIs(t, err, syscall.ENOTSUP)
	err = g.Update(context.Background(), "reopen", func(tx *Tx) error {
		return errors.Join(tx.Reopen(d, twice, Features{ReadOnly: true}), tx.Reopen(d, twice, Features{}))
	})
	require.ErrorIs(t, err, syscall.EINVAL)
	require.Equal(t, []string{"prepare", "abort"}, story)
	require.True(t, twice.Writable())
}
