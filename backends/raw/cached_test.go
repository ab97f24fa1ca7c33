package raw

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: CachedFile offers only what sendfile can read from memory; method: a file with data, then a hole, then data,
// before and after its pages are dropped.
func TestCachedFile(t *testing.T) {
	const unit = 128 << 10
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	path := makeFile(t, "/var/tmp", 3*unit)
	t.Cleanup(func() { _ = unix.Unlink(path) })
	f := openIn(t, ctx, Options{Path: path, Offset: 4096})
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(unit)
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = 1
		}
		if err := f.WriteAt(t, p, 0, 0); err != nil {
			return err
		}
		if err := f.WriteAt(t, p[:unit/2], 2*unit, 0); err != nil {
			return err
		}
		if err := f.ReadAt(t, p, unit); err != nil { // the hole is in the cache too
			return err
		}
		return f.Flush(t)
	}))
	cached := func(off, length int64) bool {
		fd, pos, ok := f.CachedFile(blockcore.Range{Offset: off, Length: length})
		if ok {
			require.Equal(t, f.fd, fd)
			require.Equal(t, off+4096, pos)
		}
		return ok
	}
	require.True(t, cached(0, unit), "data")
	require.True(t, cached(0, unit), "data that is remembered")
	require.True(t, cached(512, 100), "part of a page")
	require.False(t, cached(unit-4096, 8192), "data and the hole behind it")
	require.False(t, cached(unit, 4096), "a hole")
	require.True(t, cached(2*unit, unit/2), "data behind a hole")
	require.NoError(t, unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED))
	require.False(t, cached(0, unit), "data that is on the disk only")
}

// Goal: with O_DIRECT nothing is offered from a cache that is not used; method: ask for data that is there.
func TestCachedFileIsNotForDirect(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), 64<<10), Cache: Cache{Direct: true}})
	_, _, ok := f.CachedFile(blockcore.Range{Length: 4096})
	require.False(t, ok)
}

// Goal: what CachedFile remembers of a file that ends inside a block does not make BlockStatus tell of half a block, behind which the block layer finds
// no way on; method: a guessed format's whole sectors, a file of no whole sector, ask for both in this order, through a node.
func TestCachedFileOddEnd(t *testing.T) {
	const size = 128<<10 + 100
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	path := makeFile(t, "/var/tmp", size)
	t.Cleanup(func() { _ = unix.Unlink(path) })
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte{1}, size), 0o600))
	f, err := Open(Options{Path: path, RequireAlign512: true})
	require.NoError(t, err)
	graph := blockcore.NewGraph()
	node, err := graph.AddNode(blockcore.NodeOptions{Name: "odd", Context: ctx, Driver: f})
	require.NoError(t, err)
	root, err := graph.NewRoot(node, blockcore.RootOptions{})
	require.NoError(t, err)
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error { return f.Flush(t) }))
	_, _, ok := f.CachedFile(blockcore.Range{Length: 128 << 10})
	require.True(t, ok)
	require.NoError(t, ctx.Do(func(task *blockcore.Task) error {
		for at := int64(0); at < f.Size(); {
			exts, err := root.Edge().BlockStatus(task, blockcore.Range{Offset: at, Length: f.Size() - at}, nil, 10)
			if err != nil {
				return err
			}
			for _, e := range exts {
				at += e.Length
			}
		}
		return nil
	}))
	root.Close()
	require.NoError(t, graph.RemoveNode(node))
}
