package raw

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// reserving is a kernel that notes what is to have a place on the disk, and has none.
type reserving struct {
	kernel
	asked []blockcore.Range
}

func (r *reserving) reserve(_ int, off, length int64) error {
	r.asked = append(r.asked, blockcore.Range{Offset: off, Length: length})
	return unix.ENOSPC
}

// Goal: what a file is made longer by gets its place on ext4 only and nowhere twice, and without one the file is longer all the same; method: extend a
// file over a kernel that notes and refuses, which is said to be on several file systems.
func TestReserve(t *testing.T) {
	r := newRig(t, Options{})
	s := &reserving{}
	r.f.system = s
	extend := func(fileSystem, toBytes int64) {
		require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error {
			r.f.device.fileSystem = fileSystem
			return r.f.Extend(t, toBytes)
		}))
		require.Equal(t, toBytes, r.f.Size())
	}
	extend(unix.TMPFS_MAGIC, 128<<10)
	require.Empty(t, s.asked)
	extend(unix.EXT4_SUPER_MAGIC, 192<<10)
	extend(unix.EXT4_SUPER_MAGIC, 1<<20)
	require.Equal(t, []blockcore.Range{{Offset: 128 << 10, Length: 64 << 10}, {Offset: 192 << 10, Length: 832 << 10}}, s.asked)
	extend(unix.EXT4_SUPER_MAGIC, 8<<40) // more than there is
	require.Len(t, s.asked, 2)
}

// Goal: space that is asked for is set apart, what is in the file stays, and nobody sets space apart in what he may not write; method: a file with a hole,
// before and after, through an edge.
func TestReserveOnRequest(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	path := filepath.Join(t.TempDir(), "disk.img")
	require.NoError(t, os.WriteFile(path, []byte("data"), 0o600))
	require.NoError(t, os.Truncate(path, 1<<20))
	blocks := func() int64 {
		st, err := os.Stat(path)
		require.NoError(t, err)
		return st.Sys().(*syscall.Stat_t).Blocks
	}
	g := blockcore.NewGraph()
	n, err := g.AddNode(blockcore.NodeOptions{Name: "disk", Context: ctx, Driver: openIn(t, ctx, Options{Path: path})})
	require.NoError(t, err)
	reserve := func(writable bool, r blockcore.Range) error {
		root, err := g.NewRoot(n, blockcore.RootOptions{Writable: writable})
		require.NoError(t, err)
		defer root.Close()
		return ctx.Do(func(t *blockcore.Task) error { return root.Edge().Reserve(t, r) })
	}
	all := blockcore.Range{Length: 1 << 20}
	require.ErrorIs(t, reserve(false, all), syscall.EPERM)
	require.ErrorIs(t, reserve(true, blockcore.Range{Offset: 512, Length: 1 << 20}), syscall.EINVAL)
	require.NoError(t, reserve(true, blockcore.Range{}))
	require.Less(t, blocks(), int64(100))
	require.NoError(t, reserve(true, all))
	require.GreaterOrEqual(t, blocks(), int64(1<<20/512))
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, append([]byte("data"), make([]byte, 1<<20-4)...), p)
}
