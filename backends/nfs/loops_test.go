package nfs

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

var nfstestOptions = nfstest.Options{}

func nfstestFile(sizeBytes int64) nfstest.File { return nfstest.File{SizeBytes: sizeBytes} }

// heldWithin is an error when more is held than may be.
func heldWithin(r *rig) func(*blockcore.Task) error {
	return func(*blockcore.Task) error {
		if n := r.file.held.bytes() + r.file.reserved; n > heldBytesMax {
			return fmt.Errorf("%d bytes are held", n)
		}
		return nil
	}
}

// onNode puts the file of a rig into a graph, and returns an owner's handle on it.
func (r *rig) onNode() (*blockcore.Graph, *blockcore.Node, *blockcore.Root) {
	r.t.Helper()
	g := blockcore.NewGraphWith(blockcore.GraphOptions{Main: r.ctx})
	n, err := g.AddNode(blockcore.NodeOptions{Name: "d", Context: r.ctx, Driver: r.file})
	require.NoError(r.t, err)
	root, err := g.NewRoot(n, blockcore.RootOptions{Name: "r", Writable: true, Movable: true})
	require.NoError(r.t, err)
	r.file = nil // the graph closes it
	return g, n, root
}

// request runs one request of an owner on the loop where it is.
func request(root *blockcore.Root, fn func(t *blockcore.Task, e *blockcore.Edge) error) error {
	return root.Context().Do(func(t *blockcore.Task) error {
		k := blockcore.Ticket{Op: "test"}
		if !root.Begin(t, &k) {
			return fmt.Errorf("it has moved")
		}
		defer root.End(t, &k)
		return fn(t, root.Edge())
	})
}

func writeOn(root *blockcore.Root, off int64, p []byte) error {
	return request(root, func(t *blockcore.Task, e *blockcore.Edge) error {
		buf := t.Buffers().Get(len(p))
		defer t.Buffers().Put(buf)
		copy(buf, p)
		return e.Write(t, buf, off, 0)
	})
}

func flushOn(root *blockcore.Root) error {
	return request(root, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) })
}

// Goal: a file moves between loops with its connections and what it holds, also while one is being made anew. Method: moves between writes, with connections dropped in between.
func TestFileMovesBetweenLoops(t *testing.T) {
	r := newRig(t, nfstest.Options{}, func(o *Options) { o.Connections = 3 })
	other, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "other", Engine: blockcore.EngineThreads})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	g, n, root := r.onNode()
	want := make([]byte, diskBytes)
	for round := range 20 {
		p := random(uint64(round), 20000)
		copy(want[round*5000:], p)
		require.NoError(t, writeOn(root, int64(round*5000), p))
		if round%3 == 0 {
			r.server.DropConnections(round%2 == 0)
		}
		to := other
		if n.Context() == other {
			to = r.ctx
		}
		require.NoError(t, g.Move(context.Background(), n, to))
		require.Equal(t, to, n.Context())
	}
	require.NoError(t, flushOn(root))
	require.Equal(t, want, r.server.Stable(diskPath))
	root.Close()
	require.NoError(t, g.RemoveNodes())
}

// Goal: a drain waits for the file's requests, and for no connection that is made anew; in an outage it names the request and keeps its deadline. Method: drains of an idle
// file whose server is away, and of one with a request.
func TestDrainInAnOutage(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	g, n, root := r.onNode()
	require.NoError(t, writeOn(root, 0, []byte("data")))
	r.server.Refuse()
	r.server.DropConnections(true)
	d, err := g.Drain(context.Background(), blockcore.DrainOptions{Why: "idle", Nodes: []*blockcore.Node{n}, Max: patienceMax})
	require.NoError(t, err, "nothing is in flight")
	d.End()
	flushed := make(chan error, 1)
	go func() { flushed <- flushOn(root) }()
	require.Eventually(t, func() bool { return n.InFlight() == 1 }, patienceMax, time.Millisecond)
	_, err = g.Drain(context.Background(), blockcore.DrainOptions{Why: "outage", Nodes: []*blockcore.Node{n}, Max: 100 * time.Millisecond})
	var drain *blockcore.DrainError
	require.ErrorAs(t, err, &drain)
	require.ErrorContains(t, err, "node d")
	r.server.Accept()
	require.NoError(t, <-flushed)
	root.Close()
	require.NoError(t, g.RemoveNodes())
}

// Goal: a node is removed although its server is away, in bounded time, and says that something was not stored. Method: data that was not flushed, an outage, and a removal.
func TestRemovalInAnOutage(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	f := r.file
	g, _, root := r.onNode()
	require.NoError(t, writeOn(root, 0, []byte("data")))
	f.SetTimeout(200 * time.Millisecond)
	r.server.Silence()
	root.Close()
	require.ErrorIs(t, g.RemoveNodes(), syscall.ETIMEDOUT)
}
