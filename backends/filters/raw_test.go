package filters

import (
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: windows that a file does not have are refused in QEMU's words, and the others have the size that is left and take any request;
// method: a table over a file of 64 KiB with blocks of 4096 bytes.
func TestRawWindows(t *testing.T) {
	const file = 64 << 10
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	for _, c := range []struct {
		o    RawOptions
		size int64
		err  string
	}{
		{o: RawOptions{}, size: file},
		{o: RawOptions{Offset: 8192}, size: file - 8192},
		{o: RawOptions{Offset: 512}, size: file - 512},
		{o: RawOptions{Offset: 777}, size: file - 777},
		{o: RawOptions{SizeBytes: 1024}, size: 1024},
		{o: RawOptions{Offset: file}, size: 0},
		{o: RawOptions{Offset: 4096, SizeBytes: file - 4096}, size: file - 4096},
		{o: RawOptions{SizeBytes: 100}, err: "Specified size is not multiple of 512"},
		{o: RawOptions{SizeBytes: -512}, err: "size -512 is negative"},
		{o: RawOptions{Offset: -1}, err: "offset -1 is negative"},
		{
			o:   RawOptions{Offset: file + 1},
			err: "node raw: The sum of offset (65537) and size (0) has to be smaller or equal to the  actual size of the containing file (65536)",
		},
		{
			o:   RawOptions{Offset: 512, SizeBytes: file},
			err: "node raw: The sum of offset (512) and size (65536) has to be smaller or equal to the  actual size of the containing file (65536)",
		},
	} {
		g := blockcore.NewGraph()
		fake := blocktest.NewFake(blocktest.FakeOptions{SizeBytes: file, Limits: blockcore.Limits{Align: 4096}})
		disk, err := g.AddNode(blockcore.NodeOptions{Name: "disk", Context: ctx, Driver: fake})
		require.NoError(t, err)
		f, err := NewRaw(c.o)
		if err == nil {
			_, err = g.AddNode(blockcore.NodeOptions{Name: "raw", Driver: f, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: disk}}})
		}
		if c.err != "" {
			require.EqualError(t, err, c.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.size, g.Node("raw").Size(), "%+v", c.o)
		require.Equal(t, int64(1), g.Node("raw").Limits().Align, "%+v", c.o)
		require.False(t, g.Node("raw").Features().Filter, "a format is no filter")
	}
}

// Goal: a window goes where it says; method: a write through it, looked at in the file.
func TestRawPlace(t *testing.T) {
	f, err := NewRaw(RawOptions{Offset: 1000, SizeBytes: 1024})
	require.NoError(t, err)
	r := newRig(t, f)
	require.NoError(t, <-r.startWrite(1023, []byte{7}))
	require.ErrorIs(t, <-r.startWrite(1024, []byte{7}), syscall.ENOSPC)
	require.Equal(t, []byte{0, 7, 0}, r.fake.Contents(blockcore.Range{Offset: 2022, Length: 3}))
	require.Equal(t, []byte{7}, r.read(1023, 1))
}

// Goal: a window without a size grows and shrinks with the file, from above and from below, and one with a size stays; both take
// another window when they are reopened, if the file has it. Method: a script.
func TestRawChangesItsSize(t *testing.T) {
	f, err := NewRaw(RawOptions{Offset: 4096})
	require.NoError(t, err)
	r := newRig(t, f)
	resize := func(n *blockcore.Node, sizeBytes int64) error {
		return r.drained(func(tx *blockcore.Tx, d *blockcore.Drained) error { return tx.Resize(d, n, sizeBytes) }, n)
	}
	reopen := func(o RawOptions) error {
		return r.drained(func(tx *blockcore.Tx, d *blockcore.Drained) error { return tx.Reopen(d, r.top, o) }, r.top)
	}
	require.NoError(t, resize(r.top, 8192))
	require.Equal(t, int64(12288), r.disk.Size())
	require.ErrorIs(t, resize(r.top, math.MaxInt64-4095), syscall.EINVAL)
	require.NoError(t, resize(r.disk, 20480))
	require.Equal(t, int64(16384), r.top.Size())
	require.NoError(t, reopen(RawOptions{Offset: 512, SizeBytes: 1024}))
	require.Equal(t, int64(1024), r.top.Size())
	require.ErrorContains(t, resize(r.top, 2048), "Cannot resize fixed-size raw disks")
	require.ErrorContains(t, reopen(RawOptions{Offset: 20481}), "has to be smaller or equal")
	require.ErrorContains(t, reopen(RawOptions{SizeBytes: 1}), "Specified size is not multiple of 512")
	require.Equal(t, int64(1024), r.top.Size(), "what is refused changes nothing")
	require.NoError(t, <-r.startWrite(0, []byte{7}))
	require.Equal(t, []byte{7}, r.fake.Contents(blockcore.Range{Offset: 512, Length: 1}))
	r.requireStill()
}

// Goal: a file is never cut off below a window that it would not have any more: nothing of it is lost, and the graph goes on. Method: the
// file of each kind of window is resized under it; then another change is made.
func TestFileOfAWindowKeepsItsSize(t *testing.T) {
	for _, o := range []RawOptions{{SizeBytes: 32 << 10}, {Offset: 32 << 10}} {
		f, err := NewRaw(o)
		require.NoError(t, err)
		r := newRig(t, f)
		err = r.drained(func(tx *blockcore.Tx, d *blockcore.Drained) error { return tx.Resize(d, r.disk, 16<<10) }, r.disk)
		require.ErrorContains(t, err, "has to be smaller or equal")
		require.EqualValues(t, 64<<10, r.disk.Size())
		r.root.Close()
		require.Empty(t, r.graph.Roots())
	}
}
