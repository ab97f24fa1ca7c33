package qcow2

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// storm does random operations on a disk, many at once, beside a model of what it holds.
type storm struct {
	rig    *rig
	random *rand.Rand
	model  []byte
	unmap  bool // a discard gives zeroes
}

// operation is one of a batch.
type operation struct {
	r     blockcore.Range
	kind  int
	fill  byte
	noise []byte
}

func (s *storm) operation(r blockcore.Range) operation {
	o := operation{r: r, kind: s.random.IntN(11), fill: byte(s.random.IntN(256))}
	if o.kind >= 4 {
		o.noise = make([]byte, r.Length)
		for k := range o.noise {
			o.noise[k] = byte(s.random.Uint32())
		}
		if o.kind == 10 && s.random.IntN(4) > 0 { // so that it becomes smaller
			for k := 0; k < len(o.noise); k += 4096 {
				for n := range o.noise[k:min(k+s.random.IntN(4096), len(o.noise))] {
					o.noise[k+n] = o.fill
				}
			}
		}
	}
	return o
}

// apply changes the model.
func (s *storm) apply(o operation) {
	at := s.model[o.r.Offset:o.r.End()]
	switch {
	case o.kind < 3:
		clear(at)
	case o.noise != nil:
		copy(at, o.noise)
	}
}

func (s *storm) run(t *blockcore.Task, e *blockcore.Edge, o operation) error {
	switch o.kind {
	case 0:
		return e.WriteZeroes(t, o.r, 0)
	case 1:
		return e.WriteZeroes(t, o.r, blockcore.ZeroMayUnmap)
	case 2:
		return e.WriteZeroes(t, o.r, blockcore.ZeroMayUnmap|blockcore.ZeroFUA)
	case 3:
		return e.Discard(t, o.r, false)
	}
	p := t.Buffers().Get(len(o.noise))
	defer t.Buffers().Put(p)
	copy(p, o.noise)
	var flags blockcore.WriteFlags
	switch o.kind {
	case 9:
		flags = blockcore.WriteFUA
	case 10:
		return writeCompressed(t, e, p, o.r.Offset, o.fill&1 == 0)
	}
	return e.Write(t, p, o.r.Offset, flags)
}

// batch runs operations on ranges that do not overlap, all at once, with a flush among them now and then.
func (s *storm) batch(t *testing.T, n int) {
	t.Helper()
	size := int64(len(s.model))
	at := s.random.Int64N(size + 1)
	done := make(chan error, n+1)
	started := 0
	start := func(fn func(t *blockcore.Task, e *blockcore.Edge) error) {
		started++
		s.rig.ctx.Post(func() {
			s.rig.ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) { done <- fn(t, s.rig.root.Edge()) }))
		})
	}
	var discards []blockcore.Range
	for range n {
		length := s.random.Int64N(3000) + 1
		if s.random.IntN(4) == 0 {
			length = s.random.Int64N(300000) + 1
		}
		if at >= size {
			break
		}
		o := s.operation(blockcore.Range{Offset: at, Length: min(length, size-at)})
		at = o.r.End() + s.random.Int64N(2)*s.random.Int64N(20000)
		s.apply(o)
		if o.kind == 3 {
			discards = append(discards, o.r)
		}
		start(func(t *blockcore.Task, e *blockcore.Edge) error { return s.run(t, e, o) })
	}
	if s.random.IntN(3) == 0 {
		start(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) })
	}
	for range started {
		require.NoError(t, <-done)
	}
	for _, r := range discards { // old or zero, cluster by cluster
		got := s.rig.read(r.Offset, r.Length)
		for k, b := range got {
			if b != 0 && b != s.model[r.Offset+int64(k)] {
				require.FailNow(t, "a discard left something else", "at %#x", r.Offset+int64(k))
			}
		}
		copy(s.model[r.Offset:], got)
	}
}

// resize changes the length of the disk, in a drained section.
func (s *storm) resize(t *testing.T) {
	t.Helper()
	size := s.random.Int64N(16<<10) * 512
	n := s.rig.root.Node()
	d, err := s.rig.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "resize", Nodes: []*blockcore.Node{n}})
	require.NoError(t, err)
	defer d.End()
	require.NoError(t, s.rig.graph.Update(context.Background(), "resize", func(tx *blockcore.Tx) error { return tx.Resize(d, n, size) }))
	next := make([]byte, size)
	copy(next, s.model)
	s.model = next
}

// Goal: what we write is what is read, by us, by QEMU and by a third reader, and leaves no error and no leak, whatever the image was before and however small
// the caches are; method: images that qemu-io has worked on, over a backing file, under random operations, many at once, compared with a model.
func TestWritesWhatQEMUReads(t *testing.T) {
	tiny := int64(1024)
	entry := int64(512)
	for n, c := range matrix {
		t.Run(strings.ReplaceAll(c.options, ",", " "), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			t.Cleanup(func() { t.Logf("seed %d", seed) })
			random := rand.New(rand.NewPCG(seed, 0))
			dir := scratch(t)
			base, path := filepath.Join(dir, "base.raw"), filepath.Join(dir, "image")
			content := make([]byte, 3<<20+777&^511)
			for k := range content {
				content[k] = byte(random.Uint32())
			}
			require.NoError(t, os.WriteFile(base, content, 0o600))
			const size = 4<<20 + 1024
			var more []string
			if backed := !strings.Contains(c.options, "preallocation") && random.IntN(3) > 0; backed {
				more = []string{"-b", base, "-F", "raw"}
			}
			create(t, path, fmt.Sprint(size), c.options, more...)
			disturb(t, random, path, size, 20, c.compressed)
			o := Options{Unmap: random.IntN(4) > 0}
			if n%2 == 0 {
				o.Caches = CacheSizes{L2: &tiny, Refcount: &tiny, L2Entry: &entry}
			}
			if random.IntN(4) == 0 {
				o.Overlap.Level = OverlapAll
			}
			model := flat(t, path, "-f", "qcow2")
			snapshots := map[string][]byte{}
			for round := range 3 {
				if !strings.Contains(c.options, "refcount_bits=1") {
					name := fmt.Sprintf("snapshot%d", round)
					tool(t, "qemu-img", "snapshot", "-c", name, path)
					snapshots[name] = model
				}
				r := newRig(t)
				var children []blockcore.ChildOptions
				if more != nil {
					children = append(children, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: r.file(base, true)})
				}
				r.use(r.add(path, o, children...))
				s := &storm{rig: r, random: random, model: slices.Clone(model)}
				for k := range 20 {
					s.batch(t, 1+random.IntN(40))
					if k%7 == 6 && !(len(snapshots) > 0 && strings.Contains(c.options, "0.10")) {
						s.resize(t)
					}
				}
				model = s.model
				requireSame(t, model, r.contents(), "ours")
				r.close()
				checkImage(t, path)
				requireSame(t, model, flat(t, path, "-f", "qcow2"), "QEMU's")
				requireSame(t, model, secondOpinion(t, path), "go-qcow2reader's")
				for name, want := range snapshots {
					got := flat(t, path, "-f", "qcow2", "-l", "snapshot.name="+name)
					n := min(len(got), len(want)) // qemu-img takes the size of today
					requireSame(t, want[:n], got[:n], name)
				}
			}
		})
	}
}
