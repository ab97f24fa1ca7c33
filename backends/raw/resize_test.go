package raw

import (
	"context"
	"math"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/internal/membuf"
)

// disk is a file as the only node of a graph.
type disk struct {
	t     *testing.T
	ctx   *blockcore.AioContext
	graph *blockcore.Graph
	node  *blockcore.Node
	f     *File
}

func newDisk(t *testing.T, o Options) *disk {
	t.Helper()
	d := &disk{t: t, ctx: blocktest.NewContext(t, blockcore.EngineAuto), graph: blockcore.NewGraph()}
	d.node, d.f = d.add("disk", o)
	return d
}

// add makes another node of a file. It is removed at the end of the test.
func (d *disk) add(name string, o Options) (*blockcore.Node, *File) {
	d.t.Helper()
	f := mustOpen(d.t, o)
	n, err := d.graph.AddNode(blockcore.NodeOptions{Name: name, Context: d.ctx, Driver: f})
	require.NoError(d.t, err)
	d.t.Cleanup(func() { require.NoError(d.t, d.graph.RemoveNode(n)) })
	return n, f
}

// change changes the graph while all of it is drained.
func (d *disk) change(fn func(tx *blockcore.Tx, s *blockcore.Drained) error) error {
	d.t.Helper()
	s, err := d.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "test", All: true})
	require.NoError(d.t, err)
	defer s.End()
	return d.graph.Update(context.Background(), "test", func(tx *blockcore.Tx) error { return fn(tx, s) })
}

func (d *disk) resize(sizeBytes int64) error {
	d.t.Helper()
	return d.change(func(tx *blockcore.Tx, s *blockcore.Drained) error { return tx.Resize(s, d.node, sizeBytes) })
}

// fill writes n bytes at off, all of them value.
func (d *disk) fill(off, n int64, value byte) error {
	return d.ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(int(n))
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = value
		}
		return d.f.WriteAt(t, p, off, 0)
	})
}

func fileBytes(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	require.NoError(t, err)
	return st.Size()
}

// Goal: the file ends where the disk was told to end, behind the offset and rounded up as at open, and what was cut off is gone;
// method: a script of sizes for several ways of opening.
func TestResizeFile(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		unit int64
	}{
		{"buffered", Options{}, 512},
		{"offset", Options{Offset: 1000}, 512},
		{"direct", Options{Cache: Cache{Direct: true}, Offset: 4096}, 4096},
		{"shared", Options{ShareRW: true}, 512},
		{"unlocked", Options{Locking: imagelock.Off}, 512},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Path = makeFile(t, t.TempDir(), 64<<10)
			d := newDisk(t, c.o)
			require.NoError(t, d.fill(0, 16384, 1))
			for _, size := range []int64{128 << 10, 8192, 4 << 20, 12288} {
				require.NoError(t, d.resize(size))
				require.Equal(t, size, d.node.Size())
				require.Equal(t, c.o.Offset+size, fileBytes(t, c.o.Path))
				content, err := os.ReadFile(c.o.Path)
				require.NoError(t, err)
				require.Equal(t, byte(1), content[c.o.Offset+8191])
				require.True(t, membuf.AllZero(content[min(c.o.Offset+8192, int64(len(content))):]) || size == 128<<10, "what was cut off came back")
			}
			if c.unit == 512 {
				require.NoError(t, d.resize(1000))
				require.Equal(t, int64(1024), d.node.Size(), "as if it were opened with this size")
			}
		})
	}
}

// Goal: who cannot be resized says why, in QEMU's words, and stays as it was; method: a table.
func TestResizeRefusals(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		size int64
		says string
		is   error
	}{
		{"window", Options{SizeBytes: 4096}, 8192, "Cannot resize fixed-size raw disks", unix.ENOTSUP},
		{"read-only", Options{ReadOnly: true}, 8192, "Image is read-only", unix.EACCES},
		{"too far", Options{Offset: 512}, math.MaxInt64 - 512, "Disk size too large for the chosen offset", unix.EINVAL},
		{"larger than files are", Options{}, math.MaxInt64 - 8191, "", unix.EFBIG},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Path = makeFile(t, t.TempDir(), 64<<10)
			d := newDisk(t, c.o)
			before := d.node.Size()
			err := d.resize(c.size)
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, before, d.node.Size())
			require.Equal(t, int64(64<<10), fileBytes(t, c.o.Path))
		})
	}
}

// Goal: a file is resized only if nobody else minds, and nothing of that stays locked; method: another user who does not share the
// permission, and comes later.
func TestResizeLocks(t *testing.T) {
	path := makeFile(t, t.TempDir(), 64<<10)
	d := newDisk(t, Options{Path: path, ShareRW: true})
	bytes := lockedBytes(t, path)
	other := mustOpen(t, Options{Path: path, ShareRW: true})
	require.ErrorContains(t, d.resize(8192), `Failed to get "resize" lock`)
	require.Equal(t, int64(64<<10), fileBytes(t, path))
	require.NoError(t, d.ctx.Do(other.Close))
	require.NoError(t, d.resize(8192))
	require.Equal(t, bytes, lockedBytes(t, path))
}

// Goal: a block device that has grown is taken over when it is asked for, and cannot be made longer from here; method: a loop device over
// a file that grows.
func TestResizeDevice(t *testing.T) {
	device := loopDevice(t, 1<<20, "512")
	image, err := exec.Command("losetup", "--noheadings", "--output", "BACK-FILE", device).Output()
	require.NoError(t, err)
	d := newDisk(t, Options{Path: device})
	err = d.resize(2 << 20)
	require.ErrorContains(t, err, "Cannot grow device files")
	require.ErrorIs(t, err, unix.EINVAL)
	require.Equal(t, int64(1<<20), d.node.Size())
	require.NoError(t, os.Truncate(string(image[:len(image)-1]), 2<<20))
	require.NoError(t, exec.Command("losetup", "--set-capacity", device).Run())
	require.NoError(t, d.resize(2<<20))
	require.Equal(t, int64(2<<20), d.node.Size())
	require.NoError(t, d.fill(2<<20-512, 512, 7))
	require.NoError(t, d.resize(1<<20))
	require.Equal(t, int64(2<<20), d.node.Size(), "a device is as long as it is")
}

// Goal: the map is that of the file as it is now; method: data is found, then cut off and replaced by a hole, or moved away from by
// another offset.
func TestMapAfterResizeAndReopen(t *testing.T) {
	path := makeFile(t, t.TempDir(), 64<<10)
	d := newDisk(t, Options{Path: path})
	data, hole := []blockcore.Extent{dataExtent(64 << 10)}, []blockcore.Extent{holeExtent(64 << 10)}
	require.NoError(t, d.fill(0, 64<<10, 1))
	require.Equal(t, data, mapOf(t, d.ctx, d.f))
	require.NoError(t, d.resize(128<<10))
	require.Equal(t, append(data, hole...), mapOf(t, d.ctx, d.f))
	require.NoError(t, d.change(func(tx *blockcore.Tx, s *blockcore.Drained) error {
		return tx.Reopen(s, d.node, Options{Path: path, Offset: 64 << 10})
	}))
	require.Equal(t, hole, mapOf(t, d.ctx, d.f))
	require.NoError(t, d.fill(0, 64<<10, 1))
	require.Equal(t, data, mapOf(t, d.ctx, d.f))
	require.NoError(t, d.resize(0))
	require.NoError(t, d.resize(64<<10))
	require.Equal(t, hole, mapOf(t, d.ctx, d.f))
}
