package sim

import (
	"syscall"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// disk is the simulated disk: see the fault model in doc.go.
type disk struct {
	layer
	hardware

	// Immutable.
	limits blockcore.Limits
	zeroer int // of a hundred zeroings done by own means

	// Owned by the context.
	now      []uint64            // contents, by cell
	below    []bool              // by cell: what it holds is told to be another disk's, below
	stable   []uint64            // what a crash leaves at least
	volatile map[int][]cellWrite // since then, by cell
	seq      int
}

type cellWrite struct {
	seq int
	tag uint64
}

func (w *world) newDisk(name string, cells int, v *volume) *disk {
	d := &disk{
		hardware: newHardware(w.stream(name)),
		now:      make([]uint64, cells), stable: make([]uint64, cells), below: make([]bool, cells), volatile: map[int][]cellWrite{},
	}
	for cell := range d.below {
		d.below[cell] = v != nil
	}
	d.layer.init(w, name, d)
	d.volume = v
	aligns := []int64{1, 64, 256, 512}
	d.limits.Align = aligns[d.rng.IntN(len(aligns))]
	if d.rng.IntN(2) == 0 {
		d.limits.TransferMax = 512
	}
	d.zeroer = d.rng.IntN(3) * 50
	if d.rng.IntN(2) == 0 {
		d.unwanted = d.isUnwanted
	}
	return d
}

// isUnwanted reports whether what a Task does here may end early. What a cache writes is its own to keep until it is stored.
func (d *disk) isUnwanted(t *blockcore.Task) bool { return d.node.Unwanted(t) && !d.w.hidden(d) }

// Size is constant but for Resize.
func (d *disk) Size() int64 { return int64(len(d.now)) * simkit.CellBytes }

// Limits are drawn when the disk is made.
func (d *disk) Limits() blockcore.Limits { return d.limits }

// pieces calls fn for the cells of a request, in two pieces at different times.
func (d *disk) pieces(t *blockcore.Task, off, length int64, fn func(cell int)) error {
	if off%simkit.CellBytes != 0 || length%simkit.CellBytes != 0 || off+length > d.Size() {
		d.w.Fail("disk %s: request [%#x, +%#x) of %#x", d.name, off, length, d.Size())
		return errInjected
	}
	first, n := int(off/simkit.CellBytes), int(length/simkit.CellBytes)
	middle := d.rng.IntN(n + 1)
	for i := range n {
		if i == 0 || i == middle {
			if err := d.work(t); err != nil {
				return err
			}
		}
		fn(first + i)
	}
	return d.work(t)
}

// ReadAt implements blockcore.Driver.
func (d *disk) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	defer d.enter("read")()
	return d.pieces(t, off, int64(len(p)), func(cell int) {
		at := int64(cell)*simkit.CellBytes - off
		simkit.Fill(p[at:at+simkit.CellBytes], d.now[cell])
	})
}

// WriteAt implements blockcore.Writer.
func (d *disk) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) (err error) {
	defer d.enter("write")()
	defer d.writes(blockcore.Range{Offset: off, Length: int64(len(p))}, &err)()
	return d.pieces(t, off, int64(len(p)), func(cell int) {
		at := int64(cell)*simkit.CellBytes - off
		tag, err := simkit.Tag(p[at : at+simkit.CellBytes])
		if err != nil {
			d.w.Fail("disk %s: write of cell %d: %v", d.name, cell, err)
		}
		d.store(cell, tag, flags&blockcore.WriteFUA != 0)
		if flags&blockcore.WriteUnchanged != 0 {
			d.w.Count("copied up")
		}
	})
}

func (d *disk) store(cell int, tag uint64, stable bool) {
	d.now[cell] = tag
	d.below[cell] = false
	if stable {
		d.stable[cell] = tag
		delete(d.volatile, cell)
		return
	}
	d.seq++
	d.volatile[cell] = append(d.volatile[cell], cellWrite{d.seq, tag})
}

// Flush implements blockcore.Flusher.
func (d *disk) Flush(t *blockcore.Task) error {
	defer d.enterFlush()()
	since := d.seq
	if err := d.work(t); err != nil {
		return err
	}
	for cell := range d.now {
		list := d.volatile[cell]
		for len(list) > 0 && list[0].seq <= since {
			d.stable[cell] = list[0].tag
			list = list[1:]
		}
		d.volatile[cell] = list
	}
	return d.work(t)
}

// WriteZeroes implements blockcore.Zeroer.
func (d *disk) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) (err error) {
	defer d.enter("zero")()
	defer d.writes(r, &err)()
	if d.rng.IntN(100) >= d.zeroer {
		return syscall.ENOTSUP
	}
	return d.pieces(t, r.Offset, r.Length, func(cell int) {
		d.store(cell, 0, flags&blockcore.ZeroFUA != 0)
	})
}

// Discard implements blockcore.Discarder.
func (d *disk) Discard(t *blockcore.Task, r blockcore.Range) (err error) {
	defer d.enter("discard")()
	defer d.writes(r, &err)()
	return d.pieces(t, r.Offset, r.Length, func(cell int) {
		if d.rng.IntN(2) == 0 {
			d.store(cell, 0, false)
		}
	})
}

// BlockStatus implements blockcore.Mapper: what has been written is the disk's own, and the rest somebody else's.
func (d *disk) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	defer d.enter("status")()
	if err := d.work(t); err != nil {
		return exts, err
	}
	for at := r.Offset; at < r.End() && max > 0; at += d.limits.Align * unitsOf(d.limits.Align) {
		exts = append(exts, d.status(at, d.limits.Align*unitsOf(d.limits.Align)))
		max--
	}
	return exts, nil
}

// unitsOf is how many alignments make a cell at least.
func unitsOf(align int64) int64 { return (simkit.CellBytes + align - 1) / align }

// status tells of n bytes: they are from below if all of their cells are, and zeroes then if all of them hold those.
func (d *disk) status(off, n int64) blockcore.Extent {
	e := blockcore.Extent{Length: n, Depth: 2, Status: blockcore.ExtentZero}
	for cell := off / simkit.CellBytes; cell < (off+n)/simkit.CellBytes; cell++ {
		if !d.below[cell] {
			return blockcore.Extent{Length: n, Depth: 1}
		}
		if d.now[cell] != 0 {
			e.Status = 0
		}
	}
	return e
}

// Resize implements blockcore.Resizer.
func (d *disk) Resize(t *blockcore.Task, sizeBytes int64) error {
	defer d.enterDrained("resize")()
	if err := d.work(t); err != nil {
		return err
	}
	cells := int(sizeBytes / simkit.CellBytes)
	for cell := cells; cell < len(d.now); cell++ {
		delete(d.volatile, cell)
	}
	d.now = resized(d.now, cells)
	d.below = resized(d.below, cells)
	d.stable = resized(d.stable, cells)
	return nil
}

func resized[T any](list []T, n int) []T {
	fresh := make([]T, n)
	copy(fresh, list)
	return fresh
}

// crash loses what was not flushed. Nothing is in flight.
func (d *disk) crash() {
	for cell := range d.now {
		list := append([]cellWrite{{0, d.stable[cell]}}, d.volatile[cell]...)
		d.now[cell] = list[d.rng.IntN(len(list))].tag
		d.stable[cell] = d.now[cell]
	}
	clear(d.volatile)
}

// copyFrom makes d hold what other holds, stable or not.
func (d *disk) copyFrom(other *disk) {
	d.now = append([]uint64(nil), other.now...)
	d.below = append([]bool(nil), other.below...)
	d.stable = append([]uint64(nil), other.stable...)
	d.volatile = map[int][]cellWrite{}
	for cell, list := range other.volatile {
		d.volatile[cell] = append([]cellWrite(nil), list...)
	}
	d.seq = other.seq
}
