package blockcore

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hangingFlush is a disk whose flushes hang while it is shut.
type hangingFlush struct {
	*memory

	// Safe from anywhere.
	shut atomic.Pointer[chan struct{}]
}

func (h *hangingFlush) Flush(t *Task) error {
	if c := h.shut.Load(); c != nil {
		return t.Block(func() error { <-*c; return nil })
	}
	return h.memory.Flush(t)
}

// hang has flushes hang until open is called.
func (h *hangingFlush) hang() (open func()) {
	c := make(chan struct{})
	h.shut.Store(&c)
	return func() {
		h.shut.Store(nil)
		close(c)
	}
}

func newHangingFlush(t *testing.T) (*Graph, *Node, *hangingFlush) {
	h := &hangingFlush{memory: newMemory(4096, Limits{Align: 1})}
	g := NewGraph()
	n, err := g.AddNode(NodeOptions{Name: "disk", Context: newTestContext(t, ContextOptions{}), Driver: h})
	require.NoError(t, err)
	return g, n, h
}

// isFlush holds that a flush of the disk is the only culprit.
func isFlush(t *testing.T, found []Culprit) {
	t.Helper()
	require.Len(t, found, 1, "%v", found)
	require.Equal(t, "flush", found[0].Op)
	require.Equal(t, "disk", found[0].Node)
	require.Equal(t, "disk", found[0].By)
	require.Empty(t, found[0].What)
	require.Positive(t, found[0].Age)
	require.Contains(t, found[0].String(), "flush in node disk for ")
}

// Goal: a flush that hangs is named with its node, its age and its stack, wherever a drain has got to: ahead of the section, in the wait, and after the flush
// has been left to itself. Method: a disk that hangs in flushes; the drain's half of its time for flushing ahead passes, then the rest; another
// drain's caller loses patience in the first half.
func TestFlushAheadIsNamed(t *testing.T) {
	g, n, disk := newHangingFlush(t)
	open := disk.hang()
	failed := make(chan error, 1)
	drain := func(ctx context.Context, o DrainOptions) {
		o.Nodes = []*Node{n}
		_, err := g.Drain(ctx, o)
		failed <- err
	}
	ctx, giveUp := context.WithCancel(t.Context())
	go drain(ctx, DrainOptions{Why: "impatient", FlushAhead: true})
	until(func() bool { return n.InFlight() == 1 })
	require.Equal(t, PhaseBegin, phaseOf(g))
	isFlush(t, g.WaitsFor(g.SectionStates()[0].Section))
	giveUp()
	gaveUp, ok := errors.AsType[*DrainError](<-failed)
	require.True(t, ok)
	isFlush(t, gaveUp.Culprits)
	require.Contains(t, gaveUp.Culprits[0].Stack, "hangingFlush")
	require.Empty(t, g.SectionStates())
	require.Len(t, g.Requests(), 1)

	// What others have begun is in the way of a section, and of none that flushes nothing ahead before it begins.
	require.NoError(t, g.lock(t.Context()))
	go drain(t.Context(), DrainOptions{Why: "second", Max: time.Second})
	until(func() bool { return phaseOf(g) == PhaseBegin })
	require.Empty(t, g.WaitsFor(g.SectionStates()[0].Section))
	g.unlock()
	until(func() bool { return phaseOf(g) == PhaseSettle })
	isFlush(t, g.WaitsFor(g.SectionStates()[0].Section))
	gaveUp, ok = errors.AsType[*DrainError](<-failed)
	require.True(t, ok)
	isFlush(t, gaveUp.Culprits)
	require.ErrorContains(t, gaveUp, "waiting for flush in node disk for ")

	open()
	until(func() bool { return n.InFlight() == 0 })
	require.Empty(t, g.Requests())
	require.NoError(t, g.RemoveNode(n))
}

// Goal: a flush in a section is named, too, and a drain that comes then waits for it. Method: a change flushes a disk that hangs.
func TestFlushInASectionIsNamed(t *testing.T) {
	g, n, disk := newHangingFlush(t)
	d, err := g.Drain(t.Context(), DrainOptions{Why: "change", Nodes: []*Node{n}})
	require.NoError(t, err)
	require.Empty(t, g.WaitsFor(d))
	open := disk.hang()
	flushed := make(chan error, 1)
	go func() { flushed <- g.Update(t.Context(), "flush", func(tx *Tx) error { return tx.Flush(n) }) }()
	until(func() bool { return n.InFlight() == 1 })
	isFlush(t, g.WaitsFor(d))
	open()
	require.NoError(t, <-flushed)
	require.Empty(t, g.WaitsFor(d))
	d.End()
	require.NoError(t, g.RemoveNode(n))
}

// Goal: what a node does by itself is counted for it and for what it uses, and for none above it. Method: work of a node in the middle of three that is in
// the one below, and a count at the one above that nothing accounts for.
func TestErrandsAccountForTheirNodes(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g, low := newDisk(t, c)
	middle, err := g.AddNode(NodeOptions{Name: "middle", Context: c, Driver: &Filter{}, Children: []ChildOptions{{Role: RoleFile, Node: low}}})
	require.NoError(t, err)
	high, err := g.AddNode(NodeOptions{Name: "high", Context: c, Driver: &Filter{}, Children: []ChildOptions{{Role: RoleFile, Node: middle}}})
	require.NoError(t, err)
	errand := Culprit{Request: Request{node: low, by: middle}}
	for _, n := range []*Node{low, middle, high} {
		n.inFlight.Add(1)
	}
	require.Equal(t, map[*Node]int64{high: 1}, g.unaccounted([]*Node{high, middle, low}, []Culprit{errand}))
	for _, n := range []*Node{low, middle, high} {
		n.inFlight.Add(-1)
	}
	for _, n := range []*Node{high, middle, low} {
		require.NoError(t, g.RemoveNode(n))
	}
}
