package qcow2

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// bitmapModel is the obvious bitmap: one bool a granule.
type bitmapModel struct {
	name    string
	bits    uint
	enabled bool
	marks   map[int64]bool
}

func (m *bitmapModel) mark(off, n int64) {
	if !m.enabled {
		return
	}
	for g := off >> m.bits; g<<m.bits < off+n; g++ {
		m.marks[g] = true
	}
}

// requireMarked compares the bitmap with the model.
func (m *bitmapModel) requireMarked(t *testing.T, lengths []int64, marked bool) {
	t.Helper()
	at := int64(0)
	for _, n := range lengths {
		for g := at >> m.bits; g<<m.bits < at+n; g++ {
			if m.marks[g] != marked {
				t.Fatalf("%s: granule %d: marked is %v", m.name, g, marked)
			}
		}
		at, marked = at+n, !marked
	}
}

// requireBitmaps compares all bitmaps of an image that is open.
func requireBitmaps(t *testing.T, r *rig, models []*bitmapModel) {
	t.Helper()
	for _, m := range models {
		b := r.root.Node().Bitmaps().Find(m.name)
		require.NotNil(t, b, m.name)
		require.Equal(t, m.enabled, b.Info().Enabled)
		lengths, marked := b.Status(blockcore.Range{Length: r.image.Size()}, 1<<20)
		m.requireMarked(t, lengths, marked)
	}
}

// requireStock compares them with what qemu-nbd tells of the image.
func requireStock(t *testing.T, path string, models []*bitmapModel) {
	t.Helper()
	checkImage(t, path)
	for _, m := range models {
		out := tool(t, "nbdinfo", "--map=qemu:dirty-bitmap:"+m.name, "--", "[", "qemu-nbd", "-r", "-f", "qcow2", "-B", m.name, path, "]")
		var lengths []int64
		first := -1
		for rest := out; ; {
			var off, n int64
			var kind int
			var what string
			if k, _ := fmt.Sscanf(rest, "%d %d %d %s", &off, &n, &kind, &what); k < 4 {
				break
			}
			if first < 0 {
				first = kind
			}
			lengths = append(lengths, n)
			for rest[0] != '\n' {
				rest = rest[1:]
			}
			rest = rest[1:]
		}
		require.NotEmpty(t, lengths, out)
		m.requireMarked(t, lengths, first == 1)
	}
}

// Goal: what was written since a bitmap was made is marked in it when the image is opened again, by us and by QEMU. Method: random writes, zeroes, discards
// and resizes beside a flat model, in images of many shapes whose bitmaps are made by qemu-img, by us, or were written by the other side last.
func TestBitmapsAreKept(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			options := []string{"cluster_size=512", "cluster_size=4096", "extended_l2=on", "lazy_refcounts=on,refcount_bits=1", ""}[rng.IntN(5)]
			size := int64(1+rng.IntN(16<<11)) << 9
			path := create(t, filepath.Join(scratch(t), "i"), fmt.Sprint(size), options)
			var models []*bitmapModel
			for k := range 3 {
				m := &bitmapModel{name: fmt.Sprint("b", k), bits: uint(9 + rng.IntN(9)), enabled: k != 1, marks: map[int64]bool{}}
				args := []string{"bitmap", "--add", "-g", fmt.Sprint(1 << m.bits)}
				if !m.enabled {
					args = append(args, "--disable")
				}
				tool(t, "qemu-img", append(args, path, m.name)...)
				models = append(models, m)
			}
			for round := range 4 {
				r := open(t, path, Options{Unmap: true})
				requireBitmaps(t, r, models)
				if round == 1 {
					m := &bitmapModel{name: "ours", bits: uint(9 + rng.IntN(9)), enabled: true, marks: map[int64]bool{}}
					_, err := r.root.Node().Bitmaps().Add(m.name, m.bits, blockcore.BitmapState{Enabled: true, Persistent: true})
					require.NoError(t, err)
					models = append(models, m)
				}
				size = scribble(t, r, rng, models, size)
				requireBitmaps(t, r, models)
				r.close()
				requireStock(t, path, models)
				if size > 1<<20 {
					tool(t, "qemu-io", "-f", "qcow2", "-c", "write 100k 300k", path)
					for _, m := range models {
						m.mark(100<<10, 300<<10)
					}
				}
			}
		})
	}
}

// scribble changes the disk, and returns its size.
func scribble(t *testing.T, r *rig, rng *rand.Rand, models []*bitmapModel, size int64) int64 {
	t.Helper()
	for range 20 {
		off := rng.Int64N(size)
		n := min(1+rng.Int64N(1<<(1+rng.IntN(19))), size-off)
		op := rng.IntN(8)
		require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
			switch op {
			case 0:
				return e.WriteZeroes(t, blockcore.Range{Offset: off, Length: n}, blockcore.ZeroMayUnmap)
			case 1:
				return e.Discard(t, blockcore.Range{Offset: off, Length: n}, false)
			case 2:
				return e.Flush(t)
			}
			p := t.Buffers().Get(int(n))
			defer t.Buffers().Put(p)
			p[0] = 1
			return e.Write(t, p, off, 0)
		}))
		if op == 2 {
			continue
		}
		for _, m := range models {
			m.mark(off, n)
		}
	}
	if rng.IntN(2) == 0 {
		size = int64(1+rng.IntN(16<<11)) << 9
		r.resize(size)
		for _, m := range models {
			for g := range m.marks {
				if g<<m.bits >= size {
					delete(m.marks, g)
				}
			}
		}
	}
	return size
}

// Goal: bitmaps of an image that was not closed are not trusted, those of one that was not written to are, and a bitmap can be removed at any time.
// Method: the file is copied while the image is open, before and after the first write, and qemu-img describes the copies.
func TestBitmapsInUse(t *testing.T) {
	dir := scratch(t)
	path := create(t, filepath.Join(dir, "i"), "1M", "")
	tool(t, "qemu-img", "bitmap", "--add", path, "one")
	tool(t, "qemu-img", "bitmap", "--add", path, "two")
	r := open(t, path, Options{})
	shot := func(name string) string {
		to := filepath.Join(dir, name)
		tool(t, "cp", path, to)
		return tool(t, "qemu-img", "info", "-f", "qcow2", to)
	}
	require.NotContains(t, shot("before"), "in-use")
	r.write(0, []byte{1})
	require.Contains(t, shot("after"), "in-use")
	require.NoError(t, r.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return r.image.DropKept(t, "two") }))
	r.root.Node().Bitmaps().Find("two").Forget()
	require.NotContains(t, shot("removed"), "two")
	r.close()
	require.NotContains(t, shot("closed"), "in-use")
	checkImage(t, path)

	bad := open(t, filepath.Join(dir, "after"), Options{})
	b := bad.root.Node().Bitmaps().Find("one")
	require.True(t, b.Info().Inconsistent)
	require.ErrorContains(t, b.Acquire(), "Bitmap 'one' is inconsistent and cannot be used")
	bad.write(70000, []byte{1})
	bad.close()
	require.Contains(t, tool(t, "qemu-img", "info", filepath.Join(dir, "after")), "in-use")
	checkImage(t, filepath.Join(dir, "after"))
}

// resize changes the length of the disk, in a drained section.
func (r *rig) resize(size int64) {
	r.t.Helper()
	n := r.root.Node()
	d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "resize", Nodes: []*blockcore.Node{n}})
	require.NoError(r.t, err)
	defer d.End()
	require.NoError(r.t, r.graph.Update(context.Background(), "resize", func(tx *blockcore.Tx) error { return tx.Resize(d, n, size) }))
}
