package blockcore

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// watchfulOwner counts what it is told and is busy on demand.
type watchfulOwner struct {
	quiesced, resumed atomic.Int32
	busy              atomic.Bool
}

func (o *watchfulOwner) Quiesce()   { o.quiesced.Add(1) }
func (o *watchfulOwner) Busy() bool { return o.busy.Load() }
func (o *watchfulOwner) Resume()    { o.resumed.Add(1) }

// newDisk makes a graph with one node of the memory driver.
func newDisk(t testing.TB, c *AioContext) (*Graph, *Node) {
	t.Helper()
	g := NewGraph()
	n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: newMemory(4096, Limits{Align: 1})})
	require.NoError(t, err)
	return g, n
}

// until waits for a condition that another goroutine makes true.
func until(is func() bool) {
	for !is() {
		runtime.Gosched()
	}
}

func TestDrainWaitsForTheStepOfAnother_T_X14(t *testing.T) {
	// A section that is begun while the loop has not taken the step of an overlapping one yet waits for that step: nothing is in flight, but admission
	// is still open. The loop is held up, and both drains have no patience: the second fails as the first does.
	c := newTestContext(t, ContextOptions{})
	r := newRootOn(t, c)
	held, first := make(chan struct{}), make(chan *Drained)
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	require.True(t, c.Post(func() { <-held }))
	go func() {
		d, err := r.Drain(context.Background())
		if err != nil {
			t.Error(err)
		}
		first <- d
	}()
	until(func() bool { return r.Quiesced() == 1 && len(r.graph.control) == 0 })
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Drain(impatient)
	require.ErrorContains(t, err, "waiting for event loop "+t.Name()+", which does not answer")
	release()
	(<-first).End()
	d, err := r.Drain(t.Context())
	require.NoError(t, err)
	d.End()
}

func TestClosingABusyOwnerEndsTheWaitForIt(t *testing.T) {
	// A drain looks again when the graph has changed: it waits for an owner that is busy and never says that it is not, whose Root is closed
	// meanwhile.
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	var owner watchfulOwner
	owner.busy.Store(true)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Owner: &owner})
	require.NoError(t, err)
	for _, o := range []DrainOptions{{Nodes: []*Node{n}}, {Roots: []*Root{r}}} {
		if r == nil {
			r, err = g.NewRoot(n, RootOptions{Name: "owner", Owner: &owner})
			require.NoError(t, err)
			o.Roots = []*Root{r}
		}
		drained := make(chan *Drained)
		go func() {
			d, err := g.Drain(context.Background(), o)
			if err != nil {
				t.Error(err)
			}
			drained <- d
		}()
		until(func() bool { return r.Quiesced() > 0 })
		r.Close()
		(<-drained).End()
		r = nil
	}
}

func TestClosedOwnerIsToldNothing(t *testing.T) {
	// The owner of a Root that is closed in a section may be gone when the section ends: it is not resumed, by the closing or by the end, whether
	// the section is the Root's own or the node's. The node's count is right afterwards.
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	for _, own := range []bool{true, false} {
		var owner watchfulOwner
		r, err := g.NewRoot(n, RootOptions{Name: "owner", Owner: &owner})
		require.NoError(t, err)
		o := DrainOptions{Nodes: []*Node{n}}
		if own {
			o.Roots = []*Root{r}
		}
		d, err := g.Drain(t.Context(), o)
		require.NoError(t, err)
		require.Equal(t, int32(1), owner.quiesced.Load())
		r.Close()
		d.End()
		do(t, c, func(*Task) error { return nil })
		require.Equal(t, int32(0), owner.resumed.Load())
		require.Equal(t, 0, n.Quiesced())
		require.Equal(t, 0, r.Quiesced())
	}
}

// Goal: the owner of a Root whose closing is undone is told of the end of a section that came in between. Method: the section ends while the change that
// closes the Root waits for a flush, and then the change fails.
func TestOwnerThatIsNotClosedAfterAllIsTold(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	var owner watchfulOwner
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Owner: &owner})
	require.NoError(t, err)
	d, err := r.Drain(t.Context())
	require.NoError(t, err)
	refused := errors.New("refused")
	err = g.Update(t.Context(), "fail", func(tx *Tx) error {
		tx.CloseRoot(r)
		d.End()
		return errors.Join(tx.Flush(n), refused)
	})
	require.ErrorIs(t, err, refused)
	<-d.Over()
	do(t, c, func(*Task) error { return nil })
	require.Equal(t, int32(1), owner.resumed.Load())
	require.False(t, r.still)
	r.Close()
}

// Goal: a section that ends while a node is brought to another loop does not have that node go on before it is there. Method: a drain of all waits for background
// work of the node, and is given up while the move waits for the same; then the work ends.
func TestSectionEndsWhileANodeMoves(t *testing.T) {
	c, other := newTestContext(t, ContextOptions{Name: "one"}), newTestContext(t, ContextOptions{Name: "other"})
	g, n := newDisk(t, c)
	until := func(sections int) {
		for n.Quiesced() != sections {
			runtime.Gosched()
		}
	}
	var hold WaitQueue
	onLoop(t, c, func() { n.Background("work", func(t *Task) { t.Wait(&hold) }) })
	ctx, giveUp := context.WithCancel(t.Context())
	drained, moved := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := g.Drain(ctx, DrainOptions{Why: "all", All: true})
		drained <- err
	}()
	until(1)
	go func() {
		moved <- g.Update(t.Context(), "bring", func(tx *Tx) error { return tx.Bring(n, other) })
	}()
	until(2)
	giveUp()
	require.ErrorIs(t, <-drained, context.Canceled)
	until(1)
	onLoop(t, c, func() { hold.WakeAll() })
	require.NoError(t, <-moved)
	require.True(t, n.Context() == other)
	require.Zero(t, n.Quiesced())
}

// busyAtOnce is a disk whose driver has something to do of its own as soon as a section is over.
type busyAtOnce struct {
	*memory
	node *Node
	hold WaitQueue
}

func (d *busyAtOnce) SetNode(n *Node) { d.node = n }
func (d *busyAtOnce) Quiesce()        {}
func (d *busyAtOnce) Resume() {
	d.node.Background("work", func(t *Task) { t.Wait(&d.hold) })
}

// Goal: a node that was brought to another loop by a change that is not done does not go on there when a section of somebody else ends: it may have to go back, and must have
// nothing in flight then. Method: such a section ends while the change waits for a flush, and then the change fails.
func TestNodeThatWasBroughtGoesBackStill(t *testing.T) {
	c, other := newTestContext(t, ContextOptions{Name: "one"}), newTestContext(t, ContextOptions{Name: "other"})
	g, beside := newDisk(t, c)
	disk := &busyAtOnce{memory: newMemory(4096, Limits{Align: 1})}
	n, err := g.AddNode(NodeOptions{Name: "busy", Context: c, Driver: disk})
	require.NoError(t, err)
	d, err := g.Drain(t.Context(), DrainOptions{Nodes: []*Node{n}})
	require.NoError(t, err)
	refused := errors.New("refused")
	err = g.Update(t.Context(), "bring", func(tx *Tx) error {
		if err := tx.Bring(n, other); err != nil {
			return err
		}
		d.End()
		err := tx.Flush(beside) // while it waits the section is resumed
		do(t, other, func(*Task) error { return nil })
		return errors.Join(err, refused)
	})
	require.ErrorIs(t, err, refused)
	<-d.Over()
	require.True(t, n.Context() == c)
	require.Zero(t, n.Quiesced())
	onLoop(t, c, func() { disk.hold.WakeAll() })
}
