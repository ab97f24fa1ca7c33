package filters

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// rig is one driver on top of a fake disk, and an owner of it.
type rig struct {
	t     *testing.T
	ctx   *blockcore.AioContext
	graph *blockcore.Graph
	fake  *blocktest.Fake
	disk  *blockcore.Node
	top   *blockcore.Node
	root  *blockcore.Root
}

func newRig(t *testing.T, d blockcore.Driver) *rig {
	t.Helper()
	return newRigOn(t, d, blocktest.FakeOptions{SizeBytes: 64 << 10})
}

func newRigOn(t *testing.T, d blockcore.Driver, o blocktest.FakeOptions) *rig {
	t.Helper()
	r := &rig{t: t, ctx: blocktest.NewContext(t, blockcore.EngineThreads), graph: blockcore.NewGraph()}
	r.fake = blocktest.NewFake(o)
	var err error
	r.disk, err = r.graph.AddNode(blockcore.NodeOptions{Name: "disk", Context: r.ctx, Driver: r.fake})
	require.NoError(t, err)
	r.top = put(t, r.graph, "top", d, r.disk)
	r.own(r.top)
	return r
}

// own attaches the owner.
func (r *rig) own(n *blockcore.Node) {
	r.t.Helper()
	var err error
	r.root, err = r.graph.NewRoot(n, blockcore.RootOptions{Name: "owner", Writable: true, Movable: true})
	require.NoError(r.t, err)
}

// start begins a request of the owner, whose result the channel gives.
func (r *rig) start(op string, at blockcore.Range, fn func(*blockcore.Task, *blockcore.Edge) error) <-chan error {
	done := make(chan error, 1)
	r.root.Context().Post(func() {
		r.root.Context().Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
			k := blockcore.Ticket{Op: op, Range: at}
			if !r.root.Begin(t, &k) {
				done <- blockcore.ErrContextClosed
				return
			}
			err := fn(t, r.root.Edge())
			r.root.End(t, &k)
			done <- err
		}))
	})
	return done
}

func (r *rig) startRead(off, n int64) <-chan error {
	return r.start("read", blockcore.Range{Offset: off, Length: n}, func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(int(n))
		defer t.Buffers().Put(p)
		return e.Read(t, p, off)
	})
}

func (r *rig) startWrite(off int64, data []byte) <-chan error {
	return r.start("write", blockcore.Range{Offset: off, Length: int64(len(data))}, func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(len(data))
		defer t.Buffers().Put(p)
		copy(p, data)
		return e.Write(t, p, off, 0)
	})
}

// read returns what the owner reads.
func (r *rig) read(off, n int64) []byte {
	r.t.Helper()
	got := make([]byte, n)
	require.NoError(r.t, <-r.start("read", blockcore.Range{Offset: off, Length: n}, func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(int(n))
		defer t.Buffers().Put(p)
		err := e.Read(t, p, off)
		copy(got, p)
		return err
	}))
	return got
}

// drained changes the graph in a section that covers nodes.
func (r *rig) drained(change func(tx *blockcore.Tx, d *blockcore.Drained) error, nodes ...*blockcore.Node) error {
	r.t.Helper()
	d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "test", Nodes: nodes})
	require.NoError(r.t, err)
	defer d.End()
	return r.graph.Update(context.Background(), "test", func(tx *blockcore.Tx) error { return change(tx, d) })
}

// requireStill demands that nothing is counted in flight anywhere.
func (r *rig) requireStill() {
	r.t.Helper()
	require.Zero(r.t, r.root.InFlight())
	for _, n := range r.graph.Nodes() {
		require.Zero(r.t, n.InFlight(), n.Name())
		require.Zero(r.t, n.Quiesced(), n.Name())
	}
	require.Zero(r.t, r.fake.Active())
}
