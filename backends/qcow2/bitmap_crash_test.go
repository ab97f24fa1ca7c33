package qcow2

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// storedBitmap is what an image says of a bitmap.
type storedBitmap struct {
	inUse           bool
	granularityBits uint8
	bits            string // one byte a bit
}

// storedBitmaps reads the bitmaps of an image as a crash has left it.
func storedBitmaps(t *testing.T, p []byte) map[string]storedBitmap {
	t.Helper()
	h, err := format.Parse(append([]byte(nil), p...), format.ForUse)
	require.NoError(t, err)
	found := map[string]storedBitmap{}
	e := h.Extension(format.ExtensionBitmaps)
	if e == nil || h.Autoclear&format.AutoclearBitmaps == 0 {
		return found
	}
	g := h.Geometry()
	ext, err := format.ParseBitmaps(e.Data, g)
	require.NoError(t, err)
	all, err := format.ParseBitmapDirectory(p[ext.DirectoryOffset:int64(ext.DirectoryOffset)+int64(ext.DirectoryBytes)], ext, g, int64(h.SizeBytes))
	require.NoError(t, err)
	for _, b := range all {
		s := storedBitmap{inUse: b.Flags&format.BitmapInUse != 0, granularityBits: b.GranularityBits}
		var bits []byte
		for k := range int(b.TableEntries) {
			cluster := make([]byte, g.ClusterBytes())
			switch e := format.BitmapEntry(format.Entry(p[b.TableOffset:], k)); {
			case e.Offset() != 0:
				copy(cluster, p[e.Offset():])
			case e.AllOnes():
				for n := range cluster {
					cluster[n] = 0xff
				}
			}
			for n := range g.ClusterBytes() * 8 {
				bits = append(bits, cluster[n/8]>>(n%8)&1)
			}
		}
		n := (h.SizeBytes + 1<<b.GranularityBits - 1) >> b.GranularityBits
		s.bits = string(bits[:min(n, uint64(len(bits)))])
		found[b.Name] = s
	}
	return found
}

// Goal: a power cut at any moment leaves bitmaps that are in use, or as they were while nothing has changed yet, or as they are stored in the end; never a
// header that leads nowhere or to another backing file, and nothing that qemu-img check minds but leaks. Method: random work on a disk with a history and a
// Close, power cuts at random moments and at all of those of the Close, in images with bitmaps, with the first one to come, and with long headers.
func TestPowerCutsWithBitmaps(t *testing.T) {
	for _, c := range []struct {
		name, options string
		backing       string
		stock         int // bitmaps that are there
		add           bool
		drop          bool
		gap           bool // the header may say in between that there are none
	}{
		{name: "there", options: "cluster_size=4k", stock: 2},
		{name: "there and more", options: "cluster_size=1k", backing: "some-backing-file", stock: 1, add: true},
		{name: "the first", options: "cluster_size=8k", backing: "some-backing-file", add: true},
		{name: "the first, alone", options: "cluster_size=8k,lazy_refcounts=on", add: true},
		{name: "crossing", options: "cluster_size=8k", stock: 1, gap: true},
		{name: "the last one goes", options: "cluster_size=8k", backing: "some-backing-file", stock: 1, drop: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			dir := scratch(t)
			path := filepath.Join(dir, "image")
			args := []string{}
			if c.backing != "" {
				require.NoError(t, os.WriteFile(filepath.Join(dir, c.backing), make([]byte, 1<<20), 0o600))
				args = append(args, "-u", "-b", c.backing, "-F", "raw")
			}
			create(t, path, "1M", c.options, args...)
			for k := range c.stock {
				tool(t, "qemu-img", "bitmap", "--add", "-g", "4096", path, []string{"a", "b"}[k])
			}
			base, err := os.ReadFile(path)
			require.NoError(t, err)
			if c.gap {
				crossSectors(t, base)
			}
			m := newMemory(base, &history{}, rand.New(rand.NewPCG(seed, 1)), nil)
			r := newRig(t)
			file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "memory", Context: r.ctx, Driver: m})
			require.NoError(t, err)
			n, err := put(r.graph, "image", file, Options{Unmap: true, Warn: func(text string) { t.Error(text) }})
			require.NoError(t, err)
			r.use(n)
			if c.add {
				_, err := n.Bitmaps().Add("new", 12, blockcore.BitmapState{Enabled: true, Persistent: true})
				require.NoError(t, err)
			}
			changed := 0 // when somebody knew first that something had been written
			for range 30 {
				at := random.Int64N(n.Size() - 40000)
				r.write(at, bytes.Repeat([]byte{1}, 1+random.IntN(40000)))
				if changed == 0 {
					changed = m.h.now
				}
				if random.IntN(4) == 0 {
					require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) }))
				}
			}
			closing := m.h.now
			if c.drop {
				require.NoError(t, r.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return r.image.DropKept(t, "a") }))
				n.Bitmaps().Find("a").Forget()
			}
			r.close()
			before, after := storedBitmaps(t, base), storedBitmaps(t, m.bytes)
			h, err := format.Parse(append([]byte(nil), m.bytes...), format.ForUse)
			require.NoError(t, err)
			require.Equal(t, c.backing, h.Backing)
			moments := []int{}
			for at := range m.h.now + 1 {
				if at >= closing {
					moments = append(moments, at, at, at, at, at)
				} else if random.IntN(8) == 0 {
					moments = append(moments, at)
				}
			}
			cutter := newCutter(m)
			for _, at := range moments {
				p := bytes.Clone(cutter.cut(at, random).p)
				cutter.revert()
				h, err := format.Parse(append([]byte(nil), p...), format.ForUse)
				require.NoError(t, err)
				require.Equal(t, c.backing, h.Backing)
				now := storedBitmaps(t, p)
				for name, s := range now {
					switch old, stays := before[name]; {
					case s.inUse, s == after[name]:
					case stays && at <= changed && s == old:
					default:
						require.FailNow(t, "a bitmap is trusted that is wrong", "%s at moment %d of %d", name, at, m.h.now)
					}
				}
				for name := range before {
					_, is := now[name]
					require.True(t, is || c.drop || c.gap, "%s is gone at moment %d", name, at)
				}
				if random.IntN(20) == 0 {
					requireNoCorruption(t, filepath.Join(dir, "cut"), p)
				}
			}
		})
	}
}

// crossSectors has the extension lie across two sectors, as in images with the shorter header of older versions.
func crossSectors(t *testing.T, p []byte) {
	t.Helper()
	h, err := format.Parse(p, format.ForUse)
	require.NoError(t, err)
	h.LengthBytes, h.Unknown = 104, nil
	data := h.Extension(format.ExtensionBitmaps).Data
	h.SetExtension(format.ExtensionBitmaps, nil)
	h.SetExtension(format.ExtensionBitmaps, data) // behind the names of features
	next, err := h.Marshal()
	require.NoError(t, err)
	at := bytes.Index(next, data)
	require.True(t, at < 512 && at+24 > 512, "%d", at)
	copy(p, append(next, make([]byte, 512)...))
}

// requireNoCorruption has qemu-img look for more than leaks. An image with lazy refcounts that was not closed has them counted first.
func requireNoCorruption(t *testing.T, path string, p []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, p, 0o600))
	if h, err := format.Parse(append([]byte(nil), p...), format.ForUse); err == nil && h.Has(format.IncompatibleDirty) {
		return
	}
	const leaks = 3
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", path).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == leaks {
		return
	}
	require.NoError(t, err, "%s", out)
}
