package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

var rewrite = flag.Bool("qcow2.rewrite", false, "make the corpora of the fuzz tests anew")

// Goal: the corpora break every structure of an image on purpose: header extensions, bitmap directory, bitmap tables, snapshot tables and their L1 tables, compressed
// clusters, refcounts. Method: with -qcow2.rewrite they are made; otherwise only that they are there is looked at.
func TestCorpora(t *testing.T) {
	driver := qcowtest.Seeds{}
	for n := range fuzzImages {
		p, err := os.ReadFile(filepath.Join("offline", "testdata", "images", fmt.Sprintf("%d.qcow2", n)))
		require.NoError(t, err)
		for what, at := range structures(t, p) {
			to := []uint64{0, ^uint64(0), uint64(len(p)) &^ 511, 1<<62 | 513}[(n+len(what))%4]
			driver[fmt.Sprintf("%s-%d", what, n)] = []any{byte(n), patch(at, to), uint64(n)}
		}
	}
	qcowtest.Corpus(t, "FuzzDriver", driver, *rewrite)
	qcowtest.Corpus(t, "FuzzDriverOpen", openSeeds(t), *rewrite)
	qcowtest.Corpus(t, "FuzzInflate", inflateSeeds(t), *rewrite)
}

// patch is a change of one word.
func patch(at int64, to uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint16(nil, uint16(at/8)), to)
}

// structures finds a word in each kind of structure that an image has.
func structures(t *testing.T, p []byte) map[string]int64 {
	t.Helper()
	h, err := format.Parse(bytes.Clone(p), format.ForUse)
	require.NoError(t, err)
	word := func(at format.Host) uint64 { return format.Entry(p[at:], 0) }
	found := map[string]int64{"extension": int64(h.LengthBytes), "extension-data": int64(h.LengthBytes) + 16, "refcounts": int64(h.RefTableOffset)}
	found["refcount-block"] = int64(format.RefTableEntry(word(h.RefTableOffset)).Offset())
	g := h.Geometry()
	if e := h.Extension(format.ExtensionBitmaps); e != nil {
		ext, err := format.ParseBitmaps(e.Data, g)
		require.NoError(t, err)
		at := ext.DirectoryOffset
		found["bitmap-directory"], found["bitmap-directory-flags"] = int64(at), int64(at)+8
		all, err := format.ParseBitmapDirectory(p[at:at+format.Host(ext.DirectoryBytes)], ext, g, int64(h.SizeBytes))
		require.NoError(t, err)
		found["bitmap-table"] = int64(all[0].TableOffset)
	}
	if h.Snapshots > 0 {
		at := h.SnapshotsOffset
		found["snapshot-table"], found["snapshot-lengths"], found["snapshot-extra"] = int64(at), int64(at)+8, int64(at)+32
		found["snapshot-l1"] = int64(word(at))
	}
	for k := range int64(h.L1Entries) {
		table := format.L1Entry(word(h.L1Offset + format.Host(8*k))).Offset()
		for n := int64(0); table != 0 && n < g.ClusterBytes(); n += 8 {
			if e := word(table + format.Host(n)); e&format.FlagCompressed != 0 {
				found["compressed"] = int64(table) + n
				at, _ := g.CompressedRange(format.L2Entry{Descriptor: e})
				found["compressed-data"] = int64(at) &^ 7
			} else if e != 0 {
				found["l2"] = int64(table) + n
			}
		}
	}
	return found
}

// openSeeds are the beginnings of images with children, which FuzzDriver has none of.
func openSeeds(t *testing.T) qcowtest.Seeds {
	t.Helper()
	seeds := qcowtest.Seeds{}
	for name, change := range map[string]func(h *format.Header){
		"backing": func(h *format.Header) { require.NoError(t, h.SetBacking("base", "qcow2")) },
		"data-file": func(h *format.Header) {
			h.Incompatible |= format.IncompatibleDataFile
			h.SetExtension(format.ExtensionDataFile, []byte("data"))
		},
		"data-file-raw": func(h *format.Header) {
			h.Incompatible |= format.IncompatibleDataFile
			h.Autoclear |= format.AutoclearRawData
			h.SetExtension(format.ExtensionDataFile, []byte("data"))
		},
		"bitmaps": func(h *format.Header) {
			h.Autoclear |= format.AutoclearBitmaps
			h.SetExtension(format.ExtensionBitmaps, format.BitmapsExtension{Count: 1, DirectoryBytes: 1 << 20, DirectoryOffset: 1 << 40}.Marshal())
		},
		"subclusters": func(h *format.Header) { h.Incompatible |= format.IncompatibleExtendedL2; h.ClusterBits = 14 },
		"zstd": func(h *format.Header) {
			h.Incompatible |= format.IncompatibleCompression
			h.Compression = format.CompressionZstd
		},
		"dirty": func(h *format.Header) { h.Incompatible |= format.IncompatibleDirty },
		"huge":  func(h *format.Header) { h.ClusterBits, h.SizeBytes, h.L1Entries = 21, 1<<56, 4<<20 },
	} {
		h := &format.Header{Version: 3, ClusterBits: 9, SizeBytes: 64 << 10, L1Entries: 2, L1Offset: 1024, RefTableOffset: 512, RefTableClusters: 1, RefcountOrder: 4}
		change(h)
		p, err := h.Marshal()
		require.NoError(t, err)
		seeds[name] = []any{append(p, make([]byte, 2048)...)[:2048], uint64(len(name))}
	}
	return seeds
}

// inflateSeeds are compressed data, whole, cut off, longer than a cluster and changed, in both ways.
func inflateSeeds(t *testing.T) qcowtest.Seeds {
	t.Helper()
	seeds := qcowtest.Seeds{}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	require.NoError(t, err)
	defer z.Close()
	for name, plain := range map[string][]byte{
		"zeroes": make([]byte, 64<<10), "text": bytes.Repeat([]byte("cluster"), 10000)[:64<<10], "long": make([]byte, 1<<20), "short": []byte("x"), "nothing": nil,
	} {
		var deflated bytes.Buffer
		w, err := flate.NewWriter(&deflated, 9)
		require.NoError(t, err)
		_, err = w.Write(plain)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		for kind, packed := range map[string][]byte{"deflate-": deflated.Bytes(), "zstd-": z.EncodeAll(plain, nil)} {
			seeds[kind+name] = []any{packed}
			seeds[kind+name+"-cut"] = []any{packed[:len(packed)/2]}
			changed := bytes.Clone(packed)
			changed[len(changed)/3] ^= 0x55
			seeds[kind+name+"-changed"] = []any{changed}
		}
	}
	return seeds
}
