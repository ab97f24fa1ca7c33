package qcow2

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/offline"
	"nbd-dataplane/backends/qcow2/qcowtest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// faulted is something that is done to an image while requests to the file below fail.
type faulted struct {
	name string
	// before is done before, without faults; nil = nothing.
	before []work
	run    func(p *plant) error
	// again brings it about when the faults are over; nil = as run.
	again func(p *plant) error
}

func requests(all ...work) func(p *plant) error {
	return func(p *plant) error { return errors.Join(p.do(all...)...) }
}

// fault is how a request fails.
type fault struct {
	kind   faultKind
	errno  syscall.Errno
	sticky bool
}

// faultsOf are what is tried. A sync that fails once and then succeeds has lost nothing, as the contract of drivers has it.
var faultsOf = []fault{
	{faultRead, syscall.EIO, false},
	{faultWrite, syscall.EIO, false},
	{faultWrite, syscall.ENOSPC, false},
	{faultFlush, syscall.EIO, false},
	{faultFlush, syscall.EIO, true},
	{faultResize, syscall.ENOSPC, false},
	{faultResize, syscall.EIO, false},
}

var flushed = work{kind: workFlush}

// operations are what is done while something fails. Those places of a disk that are not written before may have anything on them.
var operations = []faulted{
	{"allocating write", nil, requests(work{workWrite, 3, 5}, flushed), nil},
	{"many allocating writes", nil, requests(work{workWrite, 1, 100}, work{workWrite, 111, 9}, flushed, work{workWrite, 130, 170}, work{workWriteFUA, 301, 1}, flushed), nil},
	{"overwrite", []work{{workWrite, 0, 64}, flushed}, requests(work{workWrite, 3, 40}, flushed), nil},
	{"overwrite before a flush", []work{{workWrite, 0, 64}}, requests(work{workWrite, 3, 40}, flushed), nil},
	{"durable write", []work{{workWrite, 40, 64}}, requests(work{workWriteFUA, 3, 70}), nil},
	{"compressed write", []work{{workWrite, 16, 8}, flushed}, requests(work{workCompressed, 0, 48}, flushed), nil},
	{"compressed write and reuse", []work{{workCompressed, 128, 32}, flushed, {workDiscard, 128, 16}, flushed, flushed}, requests(work{workCompressed, 128, 40}, flushed), nil},
	{"zeroes", []work{{workWrite, 0, 200}, flushed}, requests(work{workZero, 3, 130}, flushed), nil},
	{"zeroes that unmap", []work{{workWrite, 0, 200}, flushed}, requests(work{workZeroFUA, 1, 180}), nil},
	{"discard", []work{{workWrite, 0, 256}, flushed}, requests(work{workDiscard, 0, 250}, flushed), nil},
	{"discard and reuse", []work{{workWrite, 0, 256}, flushed, {workDiscard, 0, 250}, flushed, flushed}, requests(work{workWrite, 300, 200}, flushed, flushed), nil},
	{"grow", []work{{workWrite, 0, 8}}, func(p *plant) error { return p.resizeUnlessFixed(2) }, nil},
	{"grow by much", []work{{workWrite, 0, 8}}, func(p *plant) error { return p.resizeUnlessFixed(24) }, nil},
	{"shrink", []work{{workWrite, 0, 512}, flushed}, func(p *plant) error { return p.resizeUnlessFixed(0) }, nil},
	{"close", []work{{workWrite, 0, 40}, {workZero, 80, 60}, {workDiscard, 20, 20}}, (*plant).close, nil},
	{"open", []work{{workWrite, 0, 40}, flushed}, (*plant).closeAndOpen, nil},
	{"read-only and back", []work{{workWrite, 0, 40}, {workDiscard, 20, 20}}, (*plant).readOnlyAndBack, nil},
	{"take a snapshot", []work{{workWrite, 0, 90}, {workZero, 20, 60}}, (*plant).takeSnapshot, nil},
	{"delete a snapshot", []work{{workWrite, 0, 90}, flushed}, (*plant).deleteOldest, nil},
	{"apply a snapshot", []work{{workWrite, 0, 90}, {workZero, 20, 60}}, (*plant).applyOldest, nil},
	{"new refcount table", nil, (*plant).growRefcounts, nil},
}

// bitmapOperations are done to images with bitmaps, as well.
var bitmapOperations = []faulted{
	{"add a bitmap", nil, (*plant).addAndStore, nil},
	{"remove a bitmap", nil, (*plant).removeOneBitmap, nil},
	{"remove a bitmap in use", []work{{workWrite, 0, 90}}, (*plant).removeOneBitmap, nil},
	{"remove all bitmaps", []work{{workWrite, 0, 90}}, (*plant).removeAllBitmaps, nil},
	{"clear a bitmap", nil, (*plant).clearBitmap, nil},
	{"merge bitmaps", []work{{workWrite, 0, 90}}, (*plant).mergeBitmaps, nil},
	{"disable and enable a bitmap", []work{{workWrite, 0, 90}}, (*plant).restBitmap, nil},
	{"open after a crash", nil, (*plant).crashAndOpen, nil},
}

// operations are what is done to a sort of images.
func (s sort) operations() []faulted {
	if s.bitmaps > 0 {
		return slices.Concat(operations, bitmapOperations)
	}
	return operations
}

// resizeUnlessFixed makes the disk longer by a factor of quarters, or half as long.
func (p *plant) resizeUnlessFixed(quarters int64) error {
	switch {
	case p.sort.fixed:
		return nil
	case quarters == 0:
		return p.resize(p.sort.sizeBytes / 1024)
	}
	return p.resize(p.sort.sizeBytes/512*(4+quarters)/4 + 1)
}

// oldest is the first snapshot, or nil.
func (p *plant) oldest() *blockcore.Snapshot {
	all, err := p.rig.root.Node().Snapshots()
	require.NoError(p.t, err)
	if len(all) == 0 {
		return nil
	}
	return &all[0]
}

func (p *plant) deleteOldest() error {
	if s := p.oldest(); s != nil {
		return p.deleteSnapshot(*s)
	}
	return nil
}

func (p *plant) applyOldest() error {
	if s := p.oldest(); s != nil {
		return p.applySnapshot(*s)
	}
	return nil
}

// closeAndOpen fails in the second half only.
func (p *plant) closeAndOpen() error {
	armed := p.faults.armed
	p.faults.armed = false
	require.NoError(p.t, p.close())
	p.faults.armed = armed
	return p.open()
}

func (p *plant) readOnlyAndBack() error {
	o := p.sort.o
	o.Warn = func(string) {}
	o.ReadOnly = true
	p.rig.root.Close() // which may write
	p.rig.root = nil
	n := p.rig.graph.Node("image")
	again := func(o Options) error {
		d, err := p.rig.graph.Drain(p.t.Context(), blockcore.DrainOptions{Why: "reopen", Nodes: []*blockcore.Node{n}})
		require.NoError(p.t, err)
		defer d.End()
		return p.rig.graph.Update(p.t.Context(), "reopen", func(tx *blockcore.Tx) error { return tx.Reopen(d, n, o) })
	}
	err := again(o)
	o.ReadOnly = false
	err = errors.Join(err, again(o))
	p.rig.root, _ = p.rig.graph.NewRoot(n, blockcore.RootOptions{Name: "owner", Writable: n.Writable(), Permissions: blockcore.PermRead})
	return err
}

// growRefcounts allocates more than the refcount table counts, where that is not too much.
func (p *plant) growRefcounts() error {
	if p.rig.image.g.ClusterBits > 9 {
		return nil
	}
	var all []work
	for at := int64(0); at < p.sectors(); at += 256 {
		all = append(all, work{workWrite, at, min(256, p.sectors()-at)})
	}
	return errors.Join(p.do(append(all, flushed)...)...)
}

// attempt does an operation with the n-th request of a kind failing, and looks at what becomes of the image. It reports whether so many came at all.
func attempt(t *testing.T, ctx *blockcore.AioContext, s sort, d disks, op faulted, f fault, n int, random *rand.Rand) (met bool, last *plant) {
	t.Helper()
	p := newPlant(t, ctx, s, d, 1, false)
	p.openAlbum()
	p.openBitmaps()
	require.NoError(t, p.open())
	require.NoError(t, errors.Join(p.do(op.before...)...))
	p.faults.armed, p.faults.kind, p.faults.left, p.faults.errno, p.faults.sticky = true, f.kind, n, f.errno, f.sticky
	err := op.run(p)
	p.faults.armed = false
	if err != nil {
		require.NotZero(t, p.faults.met)
		require.ErrorIs(t, err, f.errno)
	}
	if p.faults.broken { // until the disk is opened anew nothing is durable
		if p.rig.root != nil {
			require.ErrorIs(t, errors.Join(p.do(work{kind: workWrite, first: 7, count: 3}, flushed)...), f.errno)
		}
		_ = p.close()
		p.faults.broken = false
	}
	if p.rig.root == nil {
		require.NoError(t, p.mendDirty())
		require.NoError(t, p.open())
		require.NoError(t, p.removeLostBitmaps())
	}
	p.visible()
	p.visibleBitmaps()
	require.NoError(t, op.run(p), "again")
	if p.rig.root == nil {
		require.NoError(t, p.open())
	}
	require.NoError(t, errors.Join(p.do(work{kind: workWrite, first: 5, count: 90}, flushed, work{kind: workDiscard, first: 200, count: 50}, flushed)...))
	p.visible()
	p.visibleBitmaps()
	p.closeKeeping()
	image, _, err := (&shot{p: p.file.bytes}).mend(f.sticky && p.altering(p.h.now))
	require.NoError(t, err)
	report, err := image.check(offline.RepairNothing)
	require.NoError(t, err)
	if report.Leaks > 0 {
		again := image.clone()
		_, err := again.check(offline.RepairLeaks)
		require.NoError(t, err)
		report, err = again.check(offline.RepairNothing)
		require.NoError(t, err)
		require.True(t, report.Clean())
	}
	p.cuts(2, random)
	return p.faults.met > 0, p
}

// Goal: whatever fails below, the client gets that error and the image is right: what was acknowledged is there, the same can be done again once the
// fault is gone, there is no corruption then, nor after a power cut, and a sync that has failed for good lets nothing be acknowledged. Method: each operation on each
// sort of image with the first, second, ... request of each kind failing, up to the one that does not come.
func TestFaults(t *testing.T) {
	seed := rand.Uint64()
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	for _, s := range sorts {
		t.Run(s.name, func(t *testing.T) {
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			d := s.make(t, random)
			runs := 0
			for o, op := range s.operations() {
				for k, f := range faultsOf {
					if (o+k)%faultRows != 0 {
						continue
					}
					t.Run(fmt.Sprintf("%s, %v of a %v (%v)", op.name, f.errno, f.kind, f.sticky), func(t *testing.T) {
						for n := 0; ; n += faultStride {
							runs++
							met, last := attempt(t, ctx, s, d, op, f, n, random)
							if n == 0 && f.kind == faultFlush && !s.external && !(f.sticky && last.altering(last.h.now)) {
								checkWithQEMU(t, last)
							}
							if !met {
								return
							}
						}
					})
				}
			}
			t.Logf("%d runs", runs)
		})
	}
}

// checkWithQEMU lets qemu-img be the judge: leaks are allowed.
func checkWithQEMU(t *testing.T, p *plant) {
	t.Helper()
	path := filepath.Join(scratch(t), "image")
	require.NoError(t, os.WriteFile(path, p.file.bytes, 0o600))
	const onlyLeaks = 3
	_, ran := qcowtest.Check(t, path, "")
	require.True(t, slices.Contains([]int{0, onlyLeaks}, ran.Status), "%+v", ran)
}

// Goal: a reopen that does not stand is undone whatever the disk does then; method: the change fails after the reopen, and so does all reading from then on.
func TestReopenIsUndoneWithoutReading(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	s := sorts[2] // with snapshots, whose tables would have to be read
	s.o.Overlap.Level = OverlapAll
	p := newPlant(t, ctx, s, s.make(t, rand.New(rand.NewPCG(1, 1))), 1, false)
	require.NoError(t, p.open())
	o := s.o
	o.Warn, o.Unmap = func(string) {}, false
	err := p.still("reopen", func(d *blockcore.Drained, n *blockcore.Node) error {
		return p.rig.graph.Update(t.Context(), "reopen", func(tx *blockcore.Tx) error {
			if err := tx.Reopen(d, n, o); err != nil {
				return err
			}
			p.faults.armed, p.faults.kind, p.faults.errno = true, faultRead, syscall.EIO
			return syscall.EBUSY
		})
	})
	require.ErrorIs(t, err, syscall.EBUSY)
	require.True(t, p.rig.image.options.Unmap)
	p.faults.armed = false
	require.NoError(t, errors.Join(p.do(work{kind: workWrite, first: 3, count: 40}, flushed)...))
	require.NoError(t, p.close())
}
