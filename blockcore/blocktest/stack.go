package blocktest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// TestStack runs the suite on nodes that are put on top of a driver. open makes the driver at the bottom, as for TestDriver; above puts
// the others on its node and returns the topmost, which is used through the Edge of an owner.
func TestStack(t *testing.T, open func(t *testing.T) Subject, above func(t *testing.T, g *blockcore.Graph, bottom *blockcore.Node) *blockcore.Node) {
	runSuite(t, func(t *testing.T, ctx *blockcore.AioContext) Subject {
		s := open(t)
		bottom, reopen := s.Driver, s.Reopen
		s.Driver = newStack(t, ctx, bottom, above)
		if reopen != nil {
			s.Reopen = func() blockcore.Driver { return newStack(t, ctx, reopen(), above) }
		}
		return s
	})
}

// stack shows a graph of nodes as a driver. Closing it removes all of them.
type stack struct {
	// Immutable.
	graph *blockcore.Graph
	root  *blockcore.Root
}

// The abilities of a stack.
var (
	_ blockcore.Driver     = (*stack)(nil)
	_ blockcore.Writer     = (*stack)(nil)
	_ blockcore.Flusher    = (*stack)(nil)
	_ blockcore.Zeroer     = (*stack)(nil)
	_ blockcore.Discarder  = (*stack)(nil)
	_ blockcore.Mapper     = (*stack)(nil)
	_ blockcore.Prefetcher = (*stack)(nil)
	_ blockcore.Resizer    = (*stack)(nil)
	_ blockcore.Extender   = (*stack)(nil)
	_ blockcore.Limiter    = (*stack)(nil)
	_ blockcore.Featurer   = (*stack)(nil)
)

func newStack(t *testing.T, ctx *blockcore.AioContext, bottom blockcore.Driver, above func(*testing.T, *blockcore.Graph, *blockcore.Node) *blockcore.Node) *stack {
	t.Helper()
	g := blockcore.NewGraph()
	n, err := g.AddNode(blockcore.NodeOptions{Name: "bottom", Context: ctx, Driver: bottom})
	require.NoError(t, err)
	r, err := g.NewRoot(above(t, g, n), blockcore.RootOptions{Name: "suite", Writable: true, Permissions: blockcore.PermResize})
	require.NoError(t, err)
	return &stack{graph: g, root: r}
}

func (s *stack) edge() *blockcore.Edge { return s.root.Edge() }

// Size returns that of the topmost node.
func (s *stack) Size() int64 { return s.root.Node().Size() }

// Limits returns those of the topmost node.
func (s *stack) Limits() blockcore.Limits { return s.root.Node().Limits() }

// Features returns those of the topmost node.
func (s *stack) Features() blockcore.Features { return s.root.Node().Features() }

// ReadAt reads as an owner does.
func (s *stack) ReadAt(t *blockcore.Task, p []byte, off int64) error { return s.edge().Read(t, p, off) }

// WriteAt writes as an owner does.
func (s *stack) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	return s.edge().Write(t, p, off, flags)
}

// Flush flushes as an owner does.
func (s *stack) Flush(t *blockcore.Task) error { return s.edge().Flush(t) }

// WriteZeroes zeroes as an owner does.
func (s *stack) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	return s.edge().WriteZeroes(t, r, flags)
}

// Discard discards as an owner does.
func (s *stack) Discard(t *blockcore.Task, r blockcore.Range) error {
	return s.edge().Discard(t, r, false)
}

// BlockStatus asks as an owner does.
func (s *stack) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	return s.edge().BlockStatus(t, r, exts, max)
}

// Prefetch asks as an owner does.
func (s *stack) Prefetch(t *blockcore.Task, r blockcore.Range) error { return s.edge().Prefetch(t, r) }

// Resize asks as an owner does. Nothing is in flight, so there is nothing to drain.
func (s *stack) Resize(t *blockcore.Task, sizeBytes int64) error {
	return s.edge().Resize(t, sizeBytes)
}

// Extend asks as a parent does.
func (s *stack) Extend(t *blockcore.Task, toBytes int64) error { return s.edge().Extend(t, toBytes) }

// Close takes the graph down, in the control plane, and tells what is still counted as in flight.
func (s *stack) Close(t *blockcore.Task) error {
	return t.Control(func() error {
		var errs []error
		for _, n := range s.graph.Nodes() {
			if left := n.InFlight(); left != 0 {
				errs = append(errs, fmt.Errorf("node %s has %d requests in flight", n.Name(), left))
			}
		}
		s.root.Close()
		return errors.Join(append(errs, removeAll(s.graph))...)
	})
}

// removeAll removes all nodes, those that nobody uses first.
func removeAll(g *blockcore.Graph) error {
	for len(g.Nodes()) > 0 {
		removed := false
		for _, n := range g.Nodes() {
			if len(n.Parents()) > 0 {
				continue
			}
			err := g.Update(context.Background(), "take down", func(tx *blockcore.Tx) error { return tx.RemoveNode(n) })
			if err != nil {
				return err
			}
			removed = true
		}
		if !removed {
			return errors.New("the nodes that are left use each other")
		}
	}
	return nil
}
