package format

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Goal: refcounts of every width are read as they were written and leave their neighbours alone; method: a slice of numbers beside the block.
func TestRefcountWidths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := Geometry{ClusterBits: 9, RefcountOrder: uint(rapid.IntRange(0, 6).Draw(t, "order"))}
		block := make([]byte, g.ClusterBytes())
		model := make([]uint64, g.RefBlockEntries())
		for range 50 {
			i := rapid.Int64Range(0, g.RefBlockEntries()-1).Draw(t, "i")
			model[i] = rapid.Uint64Range(0, g.RefcountMax()).Draw(t, "n")
			g.SetRefcount(block, i, model[i])
		}
		for i, n := range model {
			require.Equal(t, n, g.Refcount(block, int64(i)))
		}
	})
}

// Goal: a compressed cluster's entry tells its place and length; method: make entries and read them.
func TestCompressedEntries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := Geometry{ClusterBits: uint(rapid.IntRange(ClusterBitsMin, ClusterBitsMax).Draw(t, "bits"))}
		offset := Host(rapid.Int64Range(0, 1<<60).Draw(t, "offset"))
		length := rapid.Int64Range(1, g.ClusterBytes()-1).Draw(t, "length")
		e, ok := g.CompressedEntry(offset, length)
		if !ok {
			require.True(t, offset >= 1<<g.compressedBits() || offset >= HostMax || length > g.ClusterBytes()-SectorBytes)
			return
		}
		require.Equal(t, Compressed, g.Kind(e, false))
		require.False(t, e.Copied())
		got, n := g.CompressedRange(e)
		require.Equal(t, offset, got)
		require.GreaterOrEqual(t, n, length)
		require.Less(t, n, length+SectorBytes)
	})
}

// Goal: the kinds of clusters and subclusters; method: a table.
func TestKinds(t *testing.T) {
	plain, extended := Geometry{ClusterBits: 16}, Geometry{ClusterBits: 16, Extended: true}
	for _, c := range []struct {
		g        Geometry
		e        L2Entry
		sub      int
		dataFile bool
		want     Kind
	}{
		{plain, L2Entry{}, 0, false, Unallocated},
		{plain, L2Entry{Descriptor: FlagCopied}, 0, false, Unallocated},
		{plain, L2Entry{Descriptor: FlagCopied}, 0, true, Normal},
		{plain, L2Entry{Descriptor: 0x10000}, 0, false, Normal},
		{plain, L2Entry{Descriptor: FlagZero}, 0, false, ZeroPlain},
		{plain, L2Entry{Descriptor: FlagZero | 0x10000}, 0, false, ZeroAlloc},
		{plain, L2Entry{Descriptor: FlagCompressed | 5}, 0, false, Compressed},
		{extended, L2Entry{Descriptor: FlagCompressed | 5}, 3, false, Compressed},
		{extended, L2Entry{}, 3, false, Unallocated},
		{extended, L2Entry{Bits: 8 << 32}, 3, false, ZeroPlain},
		{extended, L2Entry{Bits: 8}, 3, false, Invalid},
		{extended, L2Entry{Descriptor: 0x10000, Bits: 8}, 3, false, Normal},
		{extended, L2Entry{Descriptor: 0x10000, Bits: 8}, 4, false, UnallocatedAlloc},
		{extended, L2Entry{Descriptor: 0x10000, Bits: 8 << 32}, 3, false, ZeroAlloc},
		{extended, L2Entry{Descriptor: 0x10000, Bits: 1<<32 | 1}, 3, false, Invalid},
	} {
		require.Equal(t, c.want, c.g.SubKind(c.e, c.sub, c.dataFile), "%+v", c)
	}
}

// Goal: a snapshot table of QEMU's is read and written as it is; method: snapshots of qemu-img, compared byte for byte.
func TestSnapshotsOfQEMU(t *testing.T) {
	path := create(t, "1G", "")
	for _, name := range []string{"one", "another one", "3"} {
		require.NoError(t, exec.Command("qemu-img", "snapshot", "-c", name, path).Run())
	}
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	h, err := Parse(firstCluster(t, path), ForUse)
	require.NoError(t, err)
	table := append(p[h.SnapshotsOffset:], 0, 0, 0, 0, 0, 0, 0) // the file ends before the padding
	all, used, err := ParseSnapshots(table, h)
	require.NoError(t, err)
	require.Len(t, all, 3)
	for i, want := range []string{"one", "another one", "3"} {
		require.Equal(t, want, all[i].Name)
		require.Equal(t, fmt.Sprint(i+1), all[i].ID)
		require.EqualValues(t, 1<<30, all[i].DiskBytes)
		require.NoError(t, all[i].Check(h.Geometry()))
	}
	again, err := MarshalSnapshots(all)
	require.NoError(t, err)
	require.Equal(t, table[:used], again)
	for n := range used {
		_, _, err := ParseSnapshots(table[:n], h)
		require.ErrorIs(t, err, ErrShort)
	}
}

// Goal: a bitmap directory of QEMU's is read and written as it is; method: bitmaps of qemu-img, compared byte for byte.
func TestBitmapsOfQEMU(t *testing.T) {
	path := create(t, "1G", "")
	for _, name := range []string{"b0", "another bitmap"} {
		require.NoError(t, exec.Command("qemu-img", "bitmap", "--add", path, name).Run())
	}
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	h, err := Parse(firstCluster(t, path), ForUse)
	require.NoError(t, err)
	e := h.Extension(ExtensionBitmaps)
	require.NotNil(t, e)
	b, err := ParseBitmaps(e.Data, h.Geometry())
	require.NoError(t, err)
	require.Equal(t, e.Data, b.Marshal())
	dir := p[b.DirectoryOffset : int64(b.DirectoryOffset)+int64(b.DirectoryBytes)]
	all, err := ParseBitmapDirectory(dir, b, h.Geometry(), int64(h.SizeBytes))
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, "another bitmap", all[1].Name)
	require.Equal(t, dir, MarshalBitmapDirectory(all))
}

// Goal: no table makes a parser panic; method: fuzz.
func FuzzTables(f *testing.F) {
	s, err := MarshalSnapshots([]Snapshot{{ID: "1", Name: "one"}, {ID: "2", Name: "two", Unknown: make([]byte, 9)}})
	require.NoError(f, err)
	f.Add(s, uint8(2))
	f.Add(MarshalBitmapDirectory([]Bitmap{{TableOffset: 512, TableEntries: 1, Type: 1, GranularityBits: 16, Name: "b"}}), uint8(1))
	f.Fuzz(func(t *testing.T, p []byte, count uint8) {
		h := &Header{Version: 3, ClusterBits: 9, Snapshots: uint32(count)}
		if all, used, err := ParseSnapshots(p, h); err == nil {
			require.LessOrEqual(t, used, len(p))
			again, err := MarshalSnapshots(all)
			if err == nil {
				_, _, err = ParseSnapshots(again, h)
				require.NoError(t, err)
			}
		}
		if all, err := ParseBitmapDirectory(p, BitmapsExtension{Count: uint32(count)}, h.Geometry(), 1<<20); err == nil {
			_, err = ParseBitmapDirectory(MarshalBitmapDirectory(all), BitmapsExtension{Count: uint32(count)}, h.Geometry(), 1<<20)
			require.NoError(t, err)
		}
		_ = ParseFeatures(p)
	})
}
