package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// sort is a sort of image.
type sort struct {
	name, options string
	sizeBytes     int64
	o             Options
	snapshots     int
	backing       bool // it stands on another disk, which is shorter
	compressed    bool // it begins with some compressed clusters
	external      bool // data is in a file of its own
	fixed         bool // it cannot be resized
	bitmaps       int
}

var (
	tinyCache  = int64(2048)
	tinyPieces = int64(512)
	tinyCaches = CacheSizes{L2: &tinyCache, Refcount: &tinyCache, L2Entry: &tinyPieces}
)

// sorts are what faults and power cuts are tried on. Disks are small: what happens to their tables is what counts.
var sorts = []sort{
	{name: "default", sizeBytes: 1 << 20, o: Options{Unmap: true}, backing: true},
	{name: "small clusters", options: "cluster_size=512,refcount_bits=64", sizeBytes: 512 << 10, o: Options{Unmap: true, Caches: tinyCaches}},
	{name: "snapshots", options: "cluster_size=2k", sizeBytes: 512 << 10, o: Options{Unmap: true}, snapshots: 2},
	{name: "subclusters", options: "cluster_size=16k,extended_l2=on", sizeBytes: 1 << 20, o: Options{Unmap: true, Caches: tinyCaches}, snapshots: 1, backing: true},
	{name: "old version", options: "compat=0.10,cluster_size=1k", sizeBytes: 512 << 10, o: Options{Unmap: true}, snapshots: 1, fixed: true},
	{name: "lazy", options: "cluster_size=4k,lazy_refcounts=on", sizeBytes: 1 << 20, o: Options{Unmap: true}},
	{name: "compressed", options: "cluster_size=4k", sizeBytes: 1 << 20, o: Options{Unmap: true}, compressed: true, snapshots: 1},
	{name: "external data", options: "cluster_size=4k,data_file=" + "%s", sizeBytes: 512 << 10, o: Options{Unmap: true}, external: true},
	{name: "kept clusters", options: "cluster_size=1k,refcount_bits=1", sizeBytes: 256 << 10, o: Options{}, backing: true},
	{name: "bitmaps", options: "cluster_size=1k", sizeBytes: 512 << 10, o: Options{Unmap: true}, backing: true, bitmaps: 2},
	{name: "lazy bitmaps", options: "cluster_size=4k,lazy_refcounts=on", sizeBytes: 512 << 10, o: Options{Unmap: true}, bitmaps: 1, snapshots: 1},
}

// disks are the bytes of an image and of what belongs to it.
type disks struct{ file, data, backing []byte }

// load makes a shot of what there is.
func (d *disks) shots() (file, data, backing *shot) {
	if d.data != nil {
		data = &shot{p: d.data}
	}
	if d.backing != nil {
		backing = &shot{p: d.backing}
	}
	return &shot{p: d.file}, data, backing
}

// make has qemu-img make an image, and qemu-io write to it. Each sector is filled with one byte.
func (s sort) make(t *testing.T, random *rand.Rand) disks {
	t.Helper()
	var d disks
	dir := scratch(t)
	path, data, below := filepath.Join(dir, "image"), filepath.Join(dir, "data"), filepath.Join(dir, "below")
	options := s.options
	if s.external {
		options = fmt.Sprintf(options, data)
	}
	var more []string
	if s.backing {
		d.backing = make([]byte, s.sizeBytes*3/4)
		for k := range d.backing {
			d.backing[k] = byte(200 + k>>9%50)
		}
		require.NoError(t, os.WriteFile(below, d.backing, 0o600))
		more = []string{"-b", below, "-F", "raw"}
	}
	create(t, path, fmt.Sprint(s.sizeBytes), options, more...)
	for n := range s.snapshots + 1 {
		args := []string{"-f", "qcow2"}
		if s.compressed && n == 0 {
			for k := range 40 {
				args = append(args, "-c", fmt.Sprintf("write -c -P %d %d 4k", 100+k, random.Int64N(s.sizeBytes/4096/40)*4096+int64(k)*(s.sizeBytes/40)&^4095))
			}
		}
		for range 6 {
			count := 1 + random.Int64N(60)
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+random.IntN(99), random.Int64N(s.sizeBytes/512-count)*512, count*512))
		}
		tool(t, "qemu-io", append(args, path)...)
		if n < s.snapshots {
			tool(t, "qemu-img", "snapshot", "-c", fmt.Sprintf("early%d", n), path)
		}
	}
	s.addBitmaps(t, path)
	var err error
	d.file, err = os.ReadFile(path)
	require.NoError(t, err)
	if s.external {
		d.data, err = os.ReadFile(data)
		require.NoError(t, err)
	}
	return d
}

// plant is an image on disks in memory, and work that is done to it, sectors being stamped.
type plant struct {
	t      *testing.T
	sort   sort
	before disks
	rig    *rig
	h      *history
	file   *memory
	data   *memory // nil = there is none
	faults *faults
	random *rand.Rand
	stamp  uint64
	album  album
	// bitmaps are those that ever were, by name.
	bitmaps map[string]*keptBitmap
	// stamps are those of the disk before.
	stamps []uint64
}

// newPlant has disks that take their time, or do not.
func newPlant(t *testing.T, ctx *blockcore.AioContext, s sort, d disks, seed uint64, slow bool) *plant {
	t.Helper()
	p := &plant{t: t, sort: s, before: d, h: &history{}, faults: &faults{}, random: rand.New(rand.NewPCG(seed, 1)), stamp: 1 << 32}
	var pace *rand.Rand
	if slow {
		pace = rand.New(rand.NewPCG(seed, 2))
	}
	p.file = newMemory(d.file, p.h, pace, p.faults)
	if s.external {
		p.data = newMemory(d.data, p.h, pace, p.faults)
	}
	p.rig = &rig{t: t, ctx: ctx}
	return p
}

// open opens the image on what the disks have now.
func (p *plant) open() error {
	g := blockcore.NewGraph()
	add := func(name string, d blockcore.Driver, readOnly bool) *blockcore.Node {
		n, err := g.AddNode(blockcore.NodeOptions{Name: name, Context: p.rig.ctx, Driver: d, ReadOnly: readOnly})
		require.NoError(p.t, err)
		return n
	}
	file := add("file", p.file, false)
	var more []blockcore.ChildOptions
	if p.data != nil {
		more = append(more, blockcore.ChildOptions{Role: blockcore.RoleData, Node: add("data", p.data, false)})
	}
	if p.before.backing != nil {
		below := newMemory(p.before.backing, &history{}, p.file.random, nil)
		more = append(more, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: add("below", below, true)})
	}
	o := p.sort.o
	o.Warn = func(string) {}
	n, err := put(g, "image", file, o, more...)
	if err != nil {
		armed := p.faults.armed
		p.faults.armed = false // or the file, which is flushed before it is closed, may fail as well
		require.NoError(p.t, g.RemoveNodes())
		p.faults.armed = armed
		return err
	}
	p.rig.graph, p.rig.image = g, n.Driver().(*Image)
	p.rig.root, err = g.NewRoot(n, blockcore.RootOptions{Name: "owner", Writable: true, Permissions: blockcore.PermRead})
	require.NoError(p.t, err)
	return nil
}

// close closes the image, which may fail; it is closed then all the same.
func (p *plant) close() error {
	if p.rig.root == nil {
		return nil
	}
	p.rig.root.Close()
	p.rig.root = nil
	err := p.rig.graph.RemoveNodes()
	if err != nil {
		p.lose()
		_ = p.rig.graph.RemoveNodes() // those that are left
	}
	return err
}

// lose notes that the image was left without a close that has succeeded: what was not flushed may be lost.
func (p *plant) lose() {
	flushed := p.h.flushed(p.h.now)
	for _, o := range p.h.ops {
		if o.end >= flushed && !o.fua {
			o.end = 0
		}
	}
}

func (p *plant) sectors() int64 { return p.rig.image.Size() / 512 }

// perform does an operation on an edge and notes it.
func (p *plant) perform(t *blockcore.Task, e *blockcore.Edge, o work) error {
	if o.kind == workFlush {
		n := len(p.h.flush)
		p.h.flush = append(p.h.flush, interval{begin: p.h.tick()})
		err := e.Flush(t)
		if err == nil {
			p.h.flush[n].end = p.h.tick()
		}
		return err
	}
	op := &guestOp{first: o.first, count: o.count, mayKeep: o.kind == workDiscard, fua: o.kind == workZeroFUA || o.kind == workWriteFUA}
	if o.kind >= workWriteFUA {
		p.stamp++
		op.stamp = p.stamp
	}
	p.h.begin(op)
	err := p.issue(t, e, o, op.stamp)
	if err == nil {
		p.h.end(op)
	}
	return err
}

func (p *plant) issue(t *blockcore.Task, e *blockcore.Edge, o work, stamp uint64) error {
	r := blockcore.Range{Offset: o.first * 512, Length: o.count * 512}
	switch o.kind {
	case workZeroFUA:
		return e.WriteZeroes(t, r, blockcore.ZeroMayUnmap|blockcore.ZeroFUA)
	case workUnmap:
		return e.WriteZeroes(t, r, blockcore.ZeroMayUnmap)
	case workZero:
		return e.WriteZeroes(t, r, 0)
	case workDiscard:
		return e.Discard(t, r, false)
	}
	buf := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(buf)
	for k := 0; k < len(buf); k += 8 {
		binary.BigEndian.PutUint64(buf[k:], stamp)
	}
	var flags blockcore.WriteFlags
	switch o.kind {
	case workWriteFUA:
		flags = blockcore.WriteFUA
	case workCompressed:
		return writeCompressed(t, e, buf, r.Offset, false)
	}
	return e.Write(t, buf, r.Offset, flags)
}

// work is one request.
type work struct {
	kind         workKind
	first, count int64 // sectors
}

// workKind is what a request does.
type workKind uint8

const (
	workFlush workKind = iota
	workDiscard
	workZero
	workUnmap
	workZeroFUA
	workWriteFUA
	workCompressed
	workWrite
)

// do does requests at once, and returns the error of each. They all begin in one turn of the loop, so that the same seed is the same run.
func (p *plant) do(all ...work) []error {
	if len(all) == 0 {
		return nil
	}
	errs := make([]error, len(all))
	done := make(chan struct{})
	left := len(all)
	p.rig.ctx.Post(func() {
		for k, o := range all {
			p.rig.ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
				errs[k] = p.perform(t, p.rig.root.Edge(), o)
				if left--; left == 0 {
					close(done)
				}
			}))
		}
	})
	<-done
	return errs
}

// still runs fn in a section in which nothing is in flight.
func (p *plant) still(why string, fn func(d *blockcore.Drained, n *blockcore.Node) error) error {
	n := p.rig.root.Node()
	d, err := p.rig.graph.Drain(context.Background(), blockcore.DrainOptions{Why: why, Nodes: []*blockcore.Node{n}})
	require.NoError(p.t, err)
	defer d.End()
	return fn(d, n)
}

// resize changes the length of the disk. What is cut off is gone, or is not: then what is below may be seen.
func (p *plant) resize(sectors int64) error {
	old := p.sectors()
	op := &guestOp{first: min(old, sectors), count: max(old, sectors) - min(old, sectors), below: p.before.backing, fua: true}
	p.h.begin(op)
	n := len(p.h.sizes)
	p.h.sizes = append(p.h.sizes, sizeOp{op.interval, sectors})
	err := p.still("resize", func(d *blockcore.Drained, node *blockcore.Node) error {
		return p.rig.graph.Update(context.Background(), "resize", func(tx *blockcore.Tx) error { return tx.Resize(d, node, sectors*512) })
	})
	if err == nil {
		p.h.end(op)
		p.h.sizes[n].end = op.end
	}
	return err
}

// reopen has the image take other options.
func (p *plant) reopen(o Options) error {
	return p.still("reopen", func(d *blockcore.Drained, n *blockcore.Node) error {
		return p.rig.graph.Update(context.Background(), "reopen", func(tx *blockcore.Tx) error { return tx.Reopen(d, n, o) })
	})
}

// visible compares what the image shows with what it may; an operation that failed may have been done in part.
func (p *plant) visible() {
	p.t.Helper()
	o := newOracle(p.h, p.stampsBefore())
	got := p.rig.contents()
	for s := int64(0); s < int64(len(got))/512; s++ {
		if stamp := binary.BigEndian.Uint64(got[s*512:]); !o.may(s, stamp, p.h.now, p.h.now+1) {
			require.FailNow(p.t, "read", "sector %d: %x", s, stamp)
		}
	}
}

func (p *plant) stampsBefore() []uint64 {
	if p.stamps == nil {
		r, err := newReader(p.before.shots())
		require.NoError(p.t, err)
		p.stamps, err = r.active()
		require.NoError(p.t, err)
	}
	return p.stamps
}
