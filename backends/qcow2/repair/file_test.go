package repair_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/backends/qcow2/repair"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// far is a disk that takes more requests while others are under way, and notes how many those were.
type far struct {
	*blocktest.Fake

	// Owned by the context.
	now, most int
}

func (d *far) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	d.enter(t)
	defer d.leave()
	return d.Fake.ReadAt(t, p, off)
}

func (d *far) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	d.enter(t)
	defer d.leave()
	return d.Fake.WriteAt(t, p, off, flags)
}

// enter takes as long as a network.
func (d *far) enter(t *blockcore.Task) {
	d.now++
	d.most = max(d.most, d.now)
	t.Sleep(time.Millisecond)
}

func (d *far) leave() { d.now-- }

// rootOn returns a Root on a node with that driver, and a context for it.
func rootOn(t *testing.T, d blockcore.Driver) *blockcore.Root {
	t.Helper()
	g, ctx := blockcore.NewGraph(), blocktest.NewContext(t, blockcore.EngineAuto)
	node, err := g.AddNode(blockcore.NodeOptions{Name: "far", Context: ctx, Driver: d})
	require.NoError(t, err)
	root, err := g.NewRoot(node, blockcore.RootOptions{Name: "test", Writable: true, Permissions: blockcore.PermResize})
	require.NoError(t, err)
	t.Cleanup(func() {
		root.Close()
		require.NoError(t, g.RemoveNodes())
	})
	return root
}

// Goal: a long write has its pieces under way at once, all of it arrives, also behind the end, and an error says how far it has come. Method: a disk that answers when it has as many as come; one of many pieces, and
// one of which a piece in the middle fails.
func TestPiecesOfAWriteGoTogether(t *testing.T) {
	d := &far{Fake: blocktest.NewFake(blocktest.FakeOptions{SizeBytes: 1 << 20})}
	root := rootOn(t, d)
	f := repair.NewFile(root.Edge(), root.Context().Do)
	const piece = 256 << 10
	p := make([]byte, 20*piece+512)
	for i := range p {
		p[i] = byte(i/512 + 1)
	}
	gate := blocktest.NewGate()
	d.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate, Times: 21})
	done := make(chan error, 1)
	var n int
	go func() {
		var err error
		n, err = f.WriteAt(p, 512)
		done <- err
	}()
	gate.WaitHeld(16)
	gate.Open()
	require.NoError(t, <-done)
	require.Equal(t, len(p), n)
	require.Equal(t, 16, d.most)
	got := make([]byte, len(p))
	_, err := f.ReadAt(got, 512)
	require.NoError(t, err)
	require.Equal(t, p, got)
	d.Add(blocktest.Rule{Op: blocktest.OpWrite, Range: blockcore.Range{Offset: 2 * piece, Length: 512}, Err: syscall.ENOSPC})
	n, err = f.WriteAt(p[:4*piece], 0)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Equal(t, 2*piece, n)
}

// Goal: a repair reads the tables of an image that is far away some at once. Method: an image of many tables that was not closed, on such a disk; qemu-img checks what has come of it.
func TestRepairReadsAhead(t *testing.T) {
	path := dirtyWith(t, "lazy_refcounts=on,cluster_size=512")
	image, err := os.ReadFile(path)
	require.NoError(t, err)
	d := &far{Fake: blocktest.NewFake(blocktest.FakeOptions{SizeBytes: int64(len(image)+511) &^ 511})}
	root := rootOn(t, d)
	_, err = repair.NewFile(root.Edge(), root.Context().Do).WriteAt(image, 0)
	require.NoError(t, err)
	d.most = 0
	var s told
	require.NoError(t, root.Context().Do(func(t *blockcore.Task) error {
		i, err := qcow2.Open(t, root.Edge(), qcow2.Options{Repair: repair.Func(s.listener())})
		if err != nil {
			return err
		}
		return i.Close(t)
	}))
	require.True(t, s.repaired)
	require.Greater(t, d.most, 2)
	path = filepath.Join(t.TempDir(), "repaired.qcow2")
	require.NoError(t, os.WriteFile(path, d.Contents(blockcore.Range{Length: d.Size()}), 0o600))
	tool(t, "qemu-img", "check", "-q", path)
}
