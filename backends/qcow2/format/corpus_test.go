package format

import (
	"encoding/binary"
	"flag"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

var rewrite = flag.Bool("rewrite", false, "make the corpora of the fuzz tests anew")

// Goal: the corpora have every header extension and every kind of table in them, right and wrong. Method: with -rewrite they are made; otherwise only that they
// are there is looked at.
func TestCorpora(t *testing.T) {
	qcowtest.Corpus(t, "FuzzHeader", headerSeeds(t), *rewrite)
	qcowtest.Corpus(t, "FuzzTables", tableSeeds(t), *rewrite)
	qcowtest.Corpus(t, "FuzzEntries", entrySeeds(), *rewrite)
}

// seedHeader is a header that is right.
func seedHeader() *Header {
	return &Header{Version: 3, ClusterBits: 9, SizeBytes: 1 << 20, L1Entries: 32, L1Offset: 1024, RefTableOffset: 512, RefTableClusters: 1, RefcountOrder: 4}
}

func headerSeeds(t *testing.T) qcowtest.Seeds {
	t.Helper()
	seeds := qcowtest.Seeds{}
	add := func(name string, change func(h *Header), breaks ...func(p []byte)) {
		h := seedHeader()
		change(h)
		p, err := h.Marshal()
		require.NoError(t, err)
		p = append(p, make([]byte, 512)...)[:512]
		for _, b := range breaks {
			b(p)
		}
		seeds[name] = []any{p}
	}
	bitmaps := func(h *Header) {
		h.SetExtension(ExtensionBitmaps, BitmapsExtension{Count: 2, DirectoryBytes: 64, DirectoryOffset: 4096}.Marshal())
		h.Autoclear |= AutoclearBitmaps
	}
	// inExtension changes a word of the first extension, its type and length being the first one.
	inExtension := func(word int, to uint64) func(p []byte) {
		return func(p []byte) { binary.BigEndian.PutUint64(p[headerBytesNew+8*word:], to) }
	}
	add("bitmaps", bitmaps)
	add("bitmaps-stale", func(h *Header) { bitmaps(h); h.Autoclear = 0 })
	add("bitmaps-none", bitmaps, inExtension(1, 0))
	add("bitmaps-too-many", bitmaps, inExtension(1, 0xffffffff<<32))
	add("bitmaps-reserved", bitmaps, inExtension(1, 2<<32|1))
	add("bitmaps-long-directory", bitmaps, inExtension(2, ^uint64(0)))
	add("bitmaps-crooked", bitmaps, inExtension(3, 4097))
	add("bitmaps-negative", bitmaps, inExtension(3, 1<<63))
	add("bitmaps-short", bitmaps, inExtension(0, uint64(ExtensionBitmaps)<<32|16))
	add("features", func(h *Header) { h.SetExtension(ExtensionFeatures, MarshalFeatures(Features())[:144]) })
	add("features-ragged", func(h *Header) { h.SetExtension(ExtensionFeatures, MarshalFeatures(Features())[:50]) })
	add("features-that-name-what-is-unknown", func(h *Header) {
		h.SetExtension(ExtensionFeatures, MarshalFeatures([]Feature{{Bit: 40, Name: strings.Repeat("x", 46)}}))
		h.Incompatible |= 1<<40 | 1<<41
	})
	add("data-file", func(h *Header) {
		h.SetExtension(ExtensionDataFile, []byte("data.raw"))
		h.Incompatible |= IncompatibleDataFile
	})
	add("data-file-raw", func(h *Header) {
		h.SetExtension(ExtensionDataFile, []byte("data.raw"))
		h.Incompatible |= IncompatibleDataFile
		h.Autoclear |= AutoclearRawData
	})
	add("data-file-without-a-name", func(h *Header) { h.Incompatible |= IncompatibleDataFile })
	add("data-file-name-alone", func(h *Header) { h.SetExtension(ExtensionDataFile, []byte("d\x00\xff")) })
	add("backing", func(h *Header) { require.NoError(t, h.SetBacking("base.qcow2", "qcow2")) })
	add("backing-without-a-format", func(h *Header) { require.NoError(t, h.SetBacking("json:{}", "")) })
	add("backing-format-too-long", func(h *Header) { require.NoError(t, h.SetBacking("base", "raw")) }, inExtension(0, uint64(ExtensionBackingFormat)<<32|16))
	add("backing-format-alone", func(h *Header) { h.SetExtension(ExtensionBackingFormat, []byte("raw")) })
	add("crypt", func(h *Header) { h.Crypt = CryptLUKS; h.SetExtension(ExtensionCrypt, make([]byte, 16)) })
	add("unknown", func(h *Header) { h.SetExtension(0x12345678, []byte("kept as it is")) })
	add("too-large", func(h *Header) { h.SetExtension(0x12345678, make([]byte, 8)) }, inExtension(0, 0x12345678<<32|0xfffffff8))
	add("twice", func(h *Header) {
		h.Extensions = slices.Repeat([]Extension{{Type: ExtensionBackingFormat, Data: []byte("raw")}}, 2)
	})
	add("all", func(h *Header) {
		require.NoError(t, h.SetBacking("base", "raw"))
		bitmaps(h)
		h.SetExtension(ExtensionFeatures, MarshalFeatures(Features())[:48])
		h.SetExtension(ExtensionDataFile, []byte("d"))
	})
	return seeds
}

func tableSeeds(t *testing.T) qcowtest.Seeds {
	t.Helper()
	seeds := qcowtest.Seeds{}
	snapshots := func(name string, count byte, all []Snapshot, breaks ...func(p []byte) []byte) {
		p, err := MarshalSnapshots(all)
		require.NoError(t, err)
		for _, b := range breaks {
			p = b(p)
		}
		seeds["snapshots-"+name] = []any{p, count}
	}
	word := func(at int, to uint32) func(p []byte) []byte {
		return func(p []byte) []byte { binary.BigEndian.PutUint32(p[at:], to); return p }
	}
	one := []Snapshot{{ID: "1", Name: "one", L1Offset: 4096, L1Entries: 2, DiskBytes: 1 << 20, ExtraBytes: 24}}
	snapshots("one", 1, one)
	snapshots("more-than-there-are", 9, one)
	snapshots("unknown-extra-data", 2, []Snapshot{{ID: "1", Name: "one", ExtraBytes: 33, Unknown: make([]byte, 9)}, {ID: "2"}})
	snapshots("little-extra-data", 1, []Snapshot{{ID: "1", Name: "old", ExtraBytes: 16}})
	snapshots("long-name", 1, []Snapshot{{ID: "1", Name: strings.Repeat("n", 700)}})
	snapshots("much-extra-data", 1, one, word(36, 0xffffffff))
	snapshots("long-l1", 1, one, word(8, 0xffffffff))
	snapshots("crooked-l1", 1, one, word(4, 4097))
	snapshots("cut", 1, one, func(p []byte) []byte { return p[:50] })
	bitmaps := func(name string, count byte, all []Bitmap, breaks ...func(p []byte) []byte) {
		p := MarshalBitmapDirectory(all)
		for _, b := range breaks {
			p = b(p)
		}
		seeds["bitmaps-"+name] = []any{p, count}
	}
	b := []Bitmap{{TableOffset: 4096, TableEntries: 1, Flags: BitmapAuto, Type: BitmapDirtyTracking, GranularityBits: 16, Name: "b"}}
	bitmaps("one", 1, b)
	bitmaps("in-use", 1, []Bitmap{{TableOffset: 4096, TableEntries: 1, Flags: BitmapInUse, Type: BitmapDirtyTracking, GranularityBits: 16, Name: "b"}})
	bitmaps("twice", 2, append(slices.Clone(b), b...))
	bitmaps("more-than-there-are", 9, b)
	bitmaps("crooked-table", 1, b, word(4, 4097))
	bitmaps("long-table", 1, b, word(8, 0xffffffff))
	bitmaps("unknown-flags", 1, b, word(12, 0xffffffff))
	bitmaps("granularity", 1, b, func(p []byte) []byte { p[17] = 255; return p })
	bitmaps("long-name", 1, b, func(p []byte) []byte { p[18], p[19] = 255, 255; return p })
	bitmaps("extra-data", 1, b, word(20, 0xfffffff0))
	bitmaps("cut", 1, b, func(p []byte) []byte { return p[:20] })
	seeds["features"] = []any{MarshalFeatures(Features()), byte(0)}
	return seeds
}

func entrySeeds() qcowtest.Seeds {
	g := func(bits, order byte, extended bool) byte {
		n := bits - 9 | order<<4
		if extended {
			n |= 1 << 7
		}
		return n
	}
	words := func(all ...uint64) (p []byte) {
		for _, w := range all {
			p = binary.BigEndian.AppendUint64(p, w)
		}
		return p
	}
	return qcowtest.Seeds{
		"mapped":            {words(1<<63|65536, 65536), g(16, 4, false)},
		"zero":              {words(1, 1|1<<63|4096), g(12, 4, false)},
		"subclusters":       {words(1<<63|65536, 0xffff0000_0000ffff), g(16, 4, true)},
		"subclusters-both":  {words(1<<63|65536, ^uint64(0)), g(16, 4, true)},
		"compressed":        {words(FlagCompressed|3<<54|65537, FlagCompressed|1<<60|511), g(16, 4, false)},
		"compressed-small":  {words(FlagCompressed|1<<61|12345, FlagCompressed|1), g(9, 4, false)},
		"compressed-large":  {words(^uint64(0)&^FlagCopied, FlagCompressed), g(21, 4, false)},
		"compressed-copied": {words(FlagCompressed|FlagCopied|4096, 0), g(12, 4, true)},
		"reserved":          {words(0x7f000000_000001ff, 0x1fe), g(16, 0, false)},
		"refcounts":         {words(0x01020304_05060708, ^uint64(0)), g(9, 6, false)},
		"refcounts-of-bits": {words(0xaaaaaaaa_55555555, 1), g(9, 0, false)},
	}
}

// Goal: no word of a table makes what reads it panic, and what is written is read back. Method: words as entries of L1, L2, bitmap and refcount tables and
// refcount blocks of all shapes.
func FuzzEntries(f *testing.F) {
	f.Fuzz(func(t *testing.T, p []byte, shape byte) {
		h := Header{Version: 3, ClusterBits: 9 + uint32(shape&15)%13, RefcountOrder: uint32(shape>>4&7) % 7}
		if shape>>7 != 0 {
			h.Incompatible |= IncompatibleExtendedL2
		}
		g := h.Geometry()
		for k := 0; (k+1)*EntryBytes <= len(p); k++ {
			w := Entry(p, k)
			l1, table, bitmap := L1Entry(w), RefTableEntry(w), BitmapEntry(w)
			require.GreaterOrEqual(t, l1.Offset(), Host(0))
			require.Equal(t, w, uint64(table.Offset())|table.Reserved())
			require.GreaterOrEqual(t, bitmap.Offset(), Host(0))
			_, _ = l1.Reserved(), bitmap.Valid(g)
		}
		for k := 0; (k+1)*g.L2EntryBytes() <= len(p); k++ {
			checkL2Entry(t, g, g.L2Entry(p, k))
		}
		if len(p) == 0 {
			return
		}
		for k := range min(int64(len(p))*8/int64(g.RefcountBits()), g.RefBlockEntries()) {
			n := g.Refcount(p, k)
			require.LessOrEqual(t, n, g.RefcountMax())
			g.SetRefcount(p, k, g.RefcountMax()-n)
			require.Equal(t, g.RefcountMax()-n, g.Refcount(p, k))
		}
	})
}

// checkL2Entry looks at an entry in all ways.
func checkL2Entry(t *testing.T, g Geometry, e L2Entry) {
	t.Helper()
	for _, dataFile := range []bool{false, true} {
		require.NotPanics(t, func() { _ = g.Kind(e, dataFile).String() })
		for sub := range 32 {
			_ = g.SubKind(e, sub, dataFile).String()
		}
	}
	_ = e.Reserved()
	if !e.Compressed() {
		return
	}
	at, n := g.CompressedRange(e)
	require.GreaterOrEqual(t, at, Host(0))
	require.True(t, n > 0 && n <= 2*g.ClusterBytes(), "%d", n)
	if again, ok := g.CompressedEntry(at, min(n, g.ClusterBytes())); ok {
		at2, n2 := g.CompressedRange(again)
		require.Equal(t, at, at2)
		require.GreaterOrEqual(t, n2, min(n, g.ClusterBytes()))
	}
}
