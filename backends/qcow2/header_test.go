package qcow2

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// shaky is a disk that carries writes of the first sector out and says that it has not.
type shaky struct {
	*memory
	fails bool
}

func (s *shaky) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	err := s.memory.WriteAt(t, p, off, flags)
	if s.fails && off == 0 {
		return syscall.EIO
	}
	return err
}

// Goal: when a change of the header fails, the one that may be on disk all the same is gone before anything else is written. Method: a shrink fails with the
// new length on disk; the next write puts the old length back first, and fails while that cannot be done.
func TestHeaderThatFailed(t *testing.T) {
	path := create(t, filepath.Join(scratch(t), "image"), "1M", "")
	base, err := os.ReadFile(path)
	require.NoError(t, err)
	s := &shaky{memory: &memory{bytes: base, random: rand.New(rand.NewPCG(1, 2)), h: &history{}}}
	r := newRig(t)
	file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "shaky", Context: r.ctx, Driver: s})
	require.NoError(t, err)
	n, err := put(r.graph, "image", file, Options{})
	require.NoError(t, err)
	r.use(n)
	length := func() uint64 {
		h, err := format.Parse(append([]byte(nil), s.bytes...), format.ForUse)
		require.NoError(t, err)
		return h.SizeBytes
	}
	shrink := func(t *blockcore.Task, _ *blockcore.Edge) error { return r.image.Resize(t, 512<<10) }
	write := func(t *blockcore.Task, e *blockcore.Edge) error {
		p := t.Buffers().Get(512)
		defer t.Buffers().Put(p)
		return e.Write(t, p, 0, 0)
	}
	s.fails = true
	require.ErrorIs(t, r.do(shrink), syscall.EIO)
	require.EqualValues(t, 512<<10, length())
	require.ErrorIs(t, r.do(write), syscall.EIO)
	s.fails = false
	require.NoError(t, r.do(write))
	require.EqualValues(t, 1<<20, length())
	require.EqualValues(t, 1<<20, n.Size())
}

// Goal: an image that was opened and did not come into the graph can be closed. Method: the change that adds it fails behind the addition.
func TestCloseWithoutFile(t *testing.T) {
	r := newRig(t)
	file := r.file(create(t, filepath.Join(scratch(t), "image"), "1M", ""), false)
	root, err := r.graph.NewRoot(file, blockcore.RootOptions{Name: "open", Writable: true, Permissions: blockcore.PermResize})
	require.NoError(t, err)
	var i *Image
	require.NoError(t, r.ctx.Do(func(t *blockcore.Task) (err error) {
		i, err = Open(t, root.Edge(), Options{})
		return err
	}))
	require.ErrorIs(t, r.graph.Update(context.Background(), "add", func(tx *blockcore.Tx) error {
		tx.CloseRoot(root)
		_, err := tx.AddNode(blockcore.NodeOptions{Name: "image", Driver: i, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: file}}})
		require.NoError(t, err)
		return syscall.ECANCELED
	}), syscall.ECANCELED)
	require.NoError(t, r.ctx.Do(i.Close))
	root.Close()
	require.NoError(t, r.graph.RemoveNodes())
}
