package qcow2

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// The fault model: a power cut at any moment leaves what was written before a sync began that has ended, and of everything else that was handed to the disk any
// part, in sectors of 512 bytes.

// history is what happened to a disk, and on top of it, in the order of time. Owned by the context.
type history struct {
	now    int
	writes []diskWrite
	syncs  []interval
	ops    []guestOp
	flush  []interval
}

// interval is from a beginning to an end; 0 = it has not ended.
type interval struct{ begin, end int }

type diskWrite struct {
	interval
	off  int64
	data []byte
}

// guestOp gives sectors a stamp; 0 = zeroes. One that may also leave them as they were is a discard.
type guestOp struct {
	interval
	first, count int64
	stamp        uint64
	mayKeep      bool
	fua          bool // durable when it ends
}

func (h *history) tick() int {
	h.now++
	return h.now
}

// memory is a disk in memory that keeps its history. What is handed to it takes a while.
type memory struct {
	bytes  []byte
	random *rand.Rand
	h      *history
}

func (m *memory) Size() int64 { return int64(len(m.bytes)) }

func (m *memory) dawdle(t *blockcore.Task) {
	for range m.random.IntN(4) {
		t.Yield()
	}
}

func (m *memory) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	m.dawdle(t)
	copy(p, m.bytes[off:])
	return nil
}

func (m *memory) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	n := len(m.h.writes)
	m.h.writes = append(m.h.writes, diskWrite{interval{begin: m.h.tick()}, off, append([]byte(nil), p...)})
	m.dawdle(t)
	copy(m.bytes[off:], p)
	m.h.writes[n].end = m.h.tick()
	if flags&blockcore.WriteFUA != 0 {
		return m.Flush(t)
	}
	return nil
}

func (m *memory) Flush(t *blockcore.Task) error {
	n := len(m.h.syncs)
	m.h.syncs = append(m.h.syncs, interval{begin: m.h.tick()})
	m.dawdle(t)
	m.h.syncs[n].end = m.h.tick()
	return nil
}

func (m *memory) Extend(_ *blockcore.Task, toBytes int64) error {
	if more := toBytes - int64(len(m.bytes)); more > 0 {
		m.bytes = append(m.bytes, make([]byte, more)...)
	}
	return nil
}

func (m *memory) Resize(_ *blockcore.Task, sizeBytes int64) error {
	m.bytes = append(m.bytes, make([]byte, max(sizeBytes-int64(len(m.bytes)), 0))...)[:sizeBytes]
	return nil
}

func (m *memory) Close(*blockcore.Task) error { return nil }

// crash returns what a power cut at a moment leaves of a disk.
func (h *history) crash(base []byte, at int, random *rand.Rand) []byte {
	p := append([]byte(nil), base...)
	synced := 0
	for _, s := range h.syncs {
		if s.end != 0 && s.end <= at {
			synced = max(synced, s.begin)
		}
	}
	keep := random.IntN(4) // of 4: how much of what is not durable gets through
	for _, w := range h.writes {
		if w.begin > at {
			break
		}
		if more := w.off + int64(len(w.data)) - int64(len(p)); more > 0 {
			p = append(p, make([]byte, more)...)
		}
		if w.end != 0 && w.end < synced {
			copy(p[w.off:], w.data)
			continue
		}
		whole := random.IntN(2) == 0
		through := random.IntN(4) <= keep
		for from := int64(0); from < int64(len(w.data)); {
			to := min((w.off+from)&^511+512-w.off, int64(len(w.data)))
			if !whole {
				through = random.IntN(4) <= keep
			}
			if through {
				copy(p[w.off+from:], w.data[from:to])
			}
			from = to
		}
	}
	return p
}

// sectors lists the operations on each sector, in the order of time.
func (h *history) sectors(count int) [][]*guestOp {
	all := make([][]*guestOp, count)
	for k := range h.ops {
		o := &h.ops[k]
		for s := o.first; s < o.first+o.count; s++ {
			all[s] = append(all[s], o)
		}
	}
	return all
}

// flushed tells when the last flush began that had ended at a moment.
func (h *history) flushed(at int) int {
	durable := 0
	for _, f := range h.flush {
		if f.end != 0 && f.end <= at {
			durable = max(durable, f.begin)
		}
	}
	return durable
}

// may reports whether a sector with those operations may have a stamp after a power cut at a moment.
func may(stamp, base uint64, ops []*guestOp, at, flushed int) bool {
	for k := len(ops) - 1; k >= 0; k-- {
		o := ops[k]
		if o.begin > at {
			continue
		}
		if o.stamp == stamp {
			return true
		}
		if durable := o.end != 0 && (o.end < flushed || o.fua && o.end <= at); durable && !o.mayKeep {
			return false
		}
	}
	return stamp == base
}

// verify looks at an image as a crash has left it: every reference is counted, and entries say "copied" if it is so: if the only reference is theirs, where
// counts may be too high. It returns the stamps of the sectors, and those of the snapshots.
func verify(t *testing.T, p []byte, high bool) ([]uint64, map[string][]uint64) {
	t.Helper()
	h, err := format.Parse(append([]byte(nil), p...), format.ForUse)
	require.NoError(t, err)
	g := h.Geometry()
	at := func(off format.Host, n int64) []byte {
		require.Zero(t, g.InCluster(off), "unaligned %#x", off)
		if int64(off)+n > int64(len(p)) {
			q := make([]byte, n)
			if int64(off) < int64(len(p)) {
				copy(q, p[off:])
			}
			return q
		}
		return p[off : int64(off)+n]
	}
	references := map[int64]uint64{}
	use := func(off format.Host, n int64) {
		for c := g.Index(off); c < g.Index(off)+g.Clusters(n); c++ {
			references[c]++
		}
	}
	refs := at(h.RefTableOffset, int64(h.RefTableClusters)<<g.ClusterBits)
	refcount := func(c int64) uint64 {
		e := format.RefTableEntry(format.Entry(refs, int(c>>g.RefBlockBits())))
		if e.Offset() == 0 {
			return 0
		}
		return g.Refcount(at(e.Offset(), g.ClusterBytes()), c&(g.RefBlockEntries()-1))
	}
	dirty := h.Has(format.IncompatibleDirty)
	var alone []int64
	copied := func(off format.Host, is bool, what string, index int) {
		if high && is {
			alone = append(alone, g.Index(off))
		}
		if n := refcount(g.Index(off)); !dirty && !high && (n == 1) != is {
			require.FailNow(t, "copied", "%s %d: copied is %v, refcount of %#x is %d", what, index, is, off, n)
		}
	}
	use(0, g.ClusterBytes())
	use(h.RefTableOffset, int64(h.RefTableClusters)<<g.ClusterBits)
	for k := range len(refs) / format.EntryBytes {
		if off := format.RefTableEntry(format.Entry(refs, k)).Offset(); off != 0 {
			use(off, g.ClusterBytes())
		}
	}
	walk := func(l1 []byte, sizeBytes uint64, active bool) []uint64 {
		stamps := make([]uint64, sizeBytes/512)
		for k := range len(l1) / format.EntryBytes {
			e := format.L1Entry(format.Entry(l1, k))
			if e.Offset() == 0 {
				continue
			}
			use(e.Offset(), g.ClusterBytes())
			if active {
				copied(e.Offset(), e.Copied(), "L1", k)
			}
			l2 := at(e.Offset(), g.ClusterBytes())
			for n := range g.L2Entries() {
				e := g.L2Entry(l2, n)
				if e.Offset() == 0 {
					continue
				}
				use(e.Offset(), g.ClusterBytes())
				if active {
					copied(e.Offset(), e.Copied(), "L2", n)
				}
				data := at(e.Offset(), g.ClusterBytes())
				first := (int64(k)<<g.L2Bits() + int64(n)) << (g.ClusterBits - 9)
				for s := int64(0); s < g.ClusterBytes()/512 && first+s < int64(len(stamps)); s++ {
					if g.SubKind(e, int(s*512>>g.SubclusterBits()), false) == format.Normal {
						stamps[first+s] = binary.BigEndian.Uint64(data[s*512:])
						if stamps[first+s] != binary.BigEndian.Uint64(data[s*512+504:]) {
							require.FailNow(t, "a sector is in pieces")
						}
					}
				}
			}
		}
		return stamps
	}
	use(h.L1Offset, int64(h.L1Entries)*format.EntryBytes)
	stamps, kept := walk(at(h.L1Offset, int64(h.L1Entries)*format.EntryBytes), h.SizeBytes, true), map[string][]uint64{}
	snapshots, used, err := format.ParseSnapshots(append(append([]byte(nil), p[h.SnapshotsOffset:]...), make([]byte, 4096)...), h)
	require.NoError(t, err)
	if used > 0 {
		use(h.SnapshotsOffset, int64(used))
	}
	for _, s := range snapshots {
		use(s.L1Offset, int64(s.L1Entries)*format.EntryBytes)
		kept[s.Name] = walk(at(s.L1Offset, int64(s.L1Entries)*format.EntryBytes), s.DiskBytes, false)
	}
	for c, n := range references {
		if got := refcount(c); !dirty && got < n {
			require.FailNow(t, "refcount", "of cluster %#x: %d, used %d times", g.Cluster(c), got, n)
		}
	}
	for _, c := range alone {
		if references[c] != 1 {
			require.FailNow(t, "copied", "cluster %#x is not the only one's who says so: %d references", g.Cluster(c), references[c])
		}
	}
	return stamps, kept
}

// crasher does random things to an image in memory, stamping sectors.
type crasher struct {
	rig    *rig
	m      *memory
	random *rand.Rand
	stamp  uint64
	size   int64 // sectors
}

// one does one operation and notes it.
func (c *crasher) one(t *blockcore.Task, e *blockcore.Edge, first, count int64) error {
	h := c.m.h
	r := blockcore.Range{Offset: first * 512, Length: count * 512}
	o := guestOp{interval: interval{begin: h.tick()}, first: first, count: count}
	kind := c.m.random.IntN(12)
	if kind > 2 {
		c.stamp++
		o.stamp = c.stamp
	}
	o.mayKeep, o.fua = kind == 2, kind == 0 || kind == 11
	n := len(h.ops)
	h.ops = append(h.ops, o)
	err := c.perform(t, e, r, kind, o.stamp)
	h.ops[n].end = h.tick()
	return err
}

func (c *crasher) perform(t *blockcore.Task, e *blockcore.Edge, r blockcore.Range, kind int, stamp uint64) error {
	switch kind {
	case 0:
		return e.WriteZeroes(t, r, blockcore.ZeroMayUnmap|blockcore.ZeroFUA)
	case 1:
		return e.WriteZeroes(t, r, 0)
	case 2:
		return e.Discard(t, r, false)
	}
	p := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(p)
	for s := int64(0); s < r.Length; s += 512 {
		for k := int64(0); k < 512; k += 8 {
			binary.BigEndian.PutUint64(p[s+k:], stamp)
		}
	}
	var flags blockcore.WriteFlags
	if kind == 11 {
		flags = blockcore.WriteFUA
	}
	return e.Write(t, p, r.Offset, flags)
}

// batch does operations on sectors of their own, at once, and flushes among them.
func (c *crasher) batch(t *testing.T) {
	t.Helper()
	done := make(chan error, 64)
	started := 0
	start := func(fn func(t *blockcore.Task, e *blockcore.Edge) error) {
		started++
		c.rig.ctx.Post(func() {
			c.rig.ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) { done <- fn(t, c.rig.root.Edge()) }))
		})
	}
	at := c.random.Int64N(c.size)
	for range 1 + c.random.IntN(12) {
		count := min(1+c.random.Int64N(40), c.size-at)
		if count <= 0 {
			break
		}
		first := at
		start(func(t *blockcore.Task, e *blockcore.Edge) error { return c.one(t, e, first, count) })
		at += count + c.random.Int64N(2)*c.random.Int64N(60)
		if c.random.IntN(8) == 0 {
			start(c.flush)
		}
	}
	for range started {
		require.NoError(t, <-done)
	}
}

func (c *crasher) flush(t *blockcore.Task, e *blockcore.Edge) error {
	h := c.m.h
	n := len(h.flush)
	h.flush = append(h.flush, interval{begin: h.tick()})
	err := e.Flush(t)
	h.flush[n].end = h.tick()
	return err
}

// Goal: a power cut at any moment leaves an image without errors, in which all is that was flushed, and every sector is old or new; method: random work on a
// disk with a history, power cuts at random moments of it.
func TestPowerCuts(t *testing.T) {
	small, entry := int64(2048), int64(512)
	for _, c := range []struct {
		name, options string
		o             Options
		snapshots     int
	}{
		{"default", "", Options{Unmap: true}, 0},
		{"small clusters", "cluster_size=512,refcount_bits=64", Options{Unmap: true, Caches: CacheSizes{L2: &small, Refcount: &small}}, 0},
		{"snapshots", "cluster_size=2k", Options{Unmap: true}, 2},
		{"subclusters", "cluster_size=16k,extended_l2=on", Options{Unmap: true, Caches: CacheSizes{L2: &small, L2Entry: &entry}}, 1},
		{"old version", "compat=0.10,cluster_size=1k", Options{Unmap: true}, 1},
		{"lazy", "cluster_size=4k,lazy_refcounts=on", Options{Unmap: true}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			t.Cleanup(func() { t.Logf("seed %d", seed) })
			random := rand.New(rand.NewPCG(seed, 0))
			path := create(t, filepath.Join(scratch(t), "image"), "3M", c.options)
			base, err := os.ReadFile(path)
			require.NoError(t, err)
			stamp := uint64(0)
			for round := range 4 {
				m := &memory{bytes: append([]byte(nil), base...), random: rand.New(rand.NewPCG(seed, uint64(round)+1)), h: &history{}}
				r := newRig(t)
				file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "memory", Context: r.ctx, Driver: m})
				require.NoError(t, err)
				c.o.Warn = func(text string) { t.Log(text) }
				n, err := put(r.graph, "image", file, c.o)
				require.NoError(t, err)
				r.use(n)
				w := &crasher{rig: r, m: m, random: random, stamp: stamp, size: n.Size() / 512}
				for range 25 {
					w.batch(t)
				}
				if random.IntN(2) == 0 {
					r.close()
				}
				stamp = w.stamp
				before, _ := verify(t, base, false)
				sectors := m.h.sectors(len(before))
				for range 100 {
					at := random.IntN(m.h.now + 1)
					got, _ := verify(t, m.h.crash(base, at, random), false)
					flushed := m.h.flushed(at)
					for s, ops := range sectors {
						if !may(got[s], before[s], ops, at, flushed) {
							require.FailNow(t, "neither old nor new", "round %d, moment %d, sector %d: %d", round, at, s, got[s])
						}
					}
				}
				r.close()
				verify(t, m.bytes, false)
				base = m.bytes
				if round < c.snapshots {
					require.NoError(t, os.WriteFile(path, base, 0o600))
					tool(t, "qemu-img", "snapshot", "-c", "s", path)
					base, err = os.ReadFile(path)
					require.NoError(t, err)
				}
			}
		})
	}
}
