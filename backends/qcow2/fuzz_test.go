package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/blockcore"
)

const (
	fuzzImages     = 8         // offline/testdata/images
	fuzzPatchBytes = 2 + 8     // one change of an image: which word, and what to put there
	fuzzFileMax    = 8 << 20   // how long the file may become
	fuzzMemoryMax  = 256 << 20 // how much one input may allocate, all in all: the tables have limits, and are looked at several times
)

// fuzzContext is a loop that lives as long as a fuzz target.
func fuzzContext(f *testing.F) *blockcore.AioContext {
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: f.Name(), Engine: blockcore.EngineThreads})
	require.NoError(f, err)
	f.Cleanup(ctx.Close)
	return ctx
}

// Goal: no image makes the driver crash, hang or fill the memory, whatever is asked of it, and one that is right stays right. Method: images of qemu-img
// with changed words are opened, read, written, resized and closed; those that a check finds clean before have to be clean afterwards.
func FuzzDriver(f *testing.F) {
	base := make([][]byte, fuzzImages)
	for n := range base {
		var err error
		base[n], err = os.ReadFile(filepath.Join("offline", "testdata", "images", fmt.Sprintf("%d.qcow2", n)))
		require.NoError(f, err)
	}
	ctx := fuzzContext(f)
	f.Fuzz(func(t *testing.T, image byte, patches []byte, seed uint64) {
		data := append([]byte(nil), base[image%fuzzImages]...)
		for ; len(patches) >= fuzzPatchBytes; patches = patches[fuzzPatchBytes:] {
			at := int(binary.BigEndian.Uint16(patches)) * 8 % (len(data) &^ 7)
			copy(data[at:at+8], patches[2:fuzzPatchBytes])
		}
		useFuzzed(t, ctx, data, seed)
	})
}

// Goal: nothing that begins like an image makes the driver crash; method: arbitrary bytes, read and written as far as they can be opened.
func FuzzDriverOpen(f *testing.F) {
	for n := range fuzzImages {
		p, err := os.ReadFile(filepath.Join("offline", "testdata", "images", fmt.Sprintf("%d.qcow2", n)))
		require.NoError(f, err)
		f.Add(p[:2048], uint64(n))
	}
	ctx := fuzzContext(f)
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) { useFuzzed(t, ctx, data, seed) })
}

// useFuzzed does to an image what can be done.
func useFuzzed(t *testing.T, ctx *blockcore.AioContext, data []byte, seed uint64) {
	whole := &shot{p: append([]byte(nil), data...)}
	report, err := whole.check(offline.RepairNothing)
	clean := err == nil && report.Clean()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := newMemory(data, &history{}, nil, nil)
	m.most = fuzzFileMax
	g := blockcore.NewGraph()
	file, err := g.AddNode(blockcore.NodeOptions{Name: "file", Context: ctx, Driver: m})
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(seed, 3))
	o := Options{ReadOnly: random.IntN(4) == 0, Unmap: random.IntN(2) == 0, Overlap: OverlapCheck{Level: OverlapLevel(random.IntN(4))}, Warn: func(string) {}}
	n, err := put(g, "image", file, o)
	if err == nil {
		workFuzzed(t, g, n, random)
	}
	_ = g.RemoveNodes()
	_ = g.RemoveNodes()
	require.Empty(t, g.Nodes())
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(fuzzMemoryMax), "bytes of memory")
	if clean && err == nil {
		_, err := (&shot{p: m.bytes}).check(offline.RepairNothing)
		require.NoError(t, err, "it was clean before")
	}
}

// workFuzzed does some requests. They may fail; they end.
func workFuzzed(t *testing.T, g *blockcore.Graph, n *blockcore.Node, random *rand.Rand) {
	root, err := g.NewRoot(n, blockcore.RootOptions{Name: "owner", Writable: n.Writable(), Permissions: blockcore.PermRead})
	require.NoError(t, err)
	defer root.Close()
	for range 12 {
		size := n.Size()
		if size == 0 {
			return
		}
		at := random.Int64N(size)
		if random.IntN(3) > 0 {
			at = min(at, random.Int64N(16<<10))
		}
		length := min(1+random.Int64N(8<<10), size-at)
		kind := workKind(random.IntN(int(workWrite) + 4))
		_ = root.Context().Do(func(task *blockcore.Task) error {
			r := blockcore.Range{Offset: at, Length: length}
			buf := task.Buffers().Get(int(length))
			defer task.Buffers().Put(buf)
			switch {
			case kind > workWrite+2:
				_, err := root.Edge().BlockStatus(task, r, nil, 16)
				return err
			case kind > workWrite:
				return root.Edge().Read(task, buf, at)
			case kind >= workWriteFUA:
				clear(buf)
				if kind == workCompressed {
					return writeCompressed(task, root.Edge(), buf, at, true)
				}
				return root.Edge().Write(task, buf, at, 0)
			case kind == workDiscard:
				return root.Edge().Discard(task, r, false)
			case kind == workFlush:
				return root.Edge().Flush(task)
			}
			return root.Edge().WriteZeroes(task, r, blockcore.ZeroFlags(random.IntN(2))*blockcore.ZeroMayUnmap)
		})
	}
}

// Goal: nothing that is called compressed data makes it crash, run on or fill the memory; method: arbitrary bytes to both decoders.
func FuzzInflate(f *testing.F) {
	plain := bytes.Repeat([]byte("cluster"), 600)[:4096]
	var deflated bytes.Buffer
	w, err := flate.NewWriter(&deflated, 6)
	require.NoError(f, err)
	_, err = w.Write(plain)
	require.NoError(f, err)
	require.NoError(f, w.Close())
	f.Add(deflated.Bytes())
	z, err := zstd.NewWriter(nil)
	require.NoError(f, err)
	f.Add(z.EncodeAll(plain, nil))
	require.NoError(f, z.Close())
	f.Fuzz(func(t *testing.T, packed []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cluster := make([]byte, 64<<10)
		_ = unpackZlib(cluster, packed)
		_ = unpackZstd(cluster, packed)
		runtime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "bytes of memory")
	})
}
