package blocktest

import (
	"syscall"
	"unsafe"

	"nbd-dataplane/blockcore"
)

// ReadAt copies from the disk.
func (f *Fake) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	if err := f.checkBuffer(p); err != nil {
		return err
	}
	r := blockcore.Range{Offset: off, Length: int64(len(p))}
	below, err := f.below(t, r)
	if err != nil {
		return err
	}
	return f.run(t, request{op: OpRead, r: r, do: func() {
		f.fillLocked(r, below)
		copy(p, f.bytes[off:])
	}})
}

// WriteAt copies to the disk.
func (f *Fake) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	if err := f.checkBuffer(p); err != nil {
		return err
	}
	q := request{op: OpWrite, r: blockcore.Range{Offset: off, Length: int64(len(p))}}
	if flags&blockcore.WriteFUA != 0 {
		q.flags = " fua"
	}
	below, err := f.below(t, q.r)
	if err != nil {
		return err
	}
	q.do = func() {
		f.fillLocked(q.r, below)
		copy(f.bytes[off:], p)
		f.markLocked(q.r, true)
	}
	return f.run(t, q)
}

// Flush has nothing to do: what is in memory stays there.
func (f *Fake) Flush(t *blockcore.Task) error { return f.run(t, request{op: OpFlush}) }

// WriteZeroes clears a range, and gives it back where that is allowed.
func (f *Fake) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	q := request{op: OpZero, r: r}
	for _, flag := range []struct {
		bit  blockcore.ZeroFlags
		name string
	}{{blockcore.ZeroFUA, " fua"}, {blockcore.ZeroMayUnmap, " unmap"}, {blockcore.ZeroNoFallback, " fast"}} {
		if flags&flag.bit != 0 {
			q.flags += flag.name
		}
	}
	if flags&blockcore.ZeroNoFallback != 0 && !f.features.FastZero {
		f.log.Add("%s: %s: ENOTSUP", f.name, q.String())
		return syscall.ENOTSUP
	}
	below, err := f.below(t, r)
	if err != nil {
		return err
	}
	q.do = func() {
		f.fillLocked(r, below)
		clear(f.bytes[r.Offset:r.End()])
		f.markLocked(r, flags&blockcore.ZeroMayUnmap == 0 || below != nil)
	}
	return f.run(t, q)
}

// Discard clears a range and gives it back.
func (f *Fake) Discard(t *blockcore.Task, r blockcore.Range) error {
	below, err := f.below(t, r)
	if err != nil {
		return err
	}
	return f.run(t, request{op: OpDiscard, r: r, do: func() {
		f.fillLocked(r, below)
		clear(f.bytes[r.Offset:r.End()])
		f.markLocked(r, below != nil)
	}})
}

// markLocked notes what has storage. A unit is given back only as a whole.
func (f *Fake) markLocked(r blockcore.Range, allocated bool) {
	unit := f.unit()
	first, end := r.Offset/unit, (r.End()+unit-1)/unit
	if !allocated {
		first, end = (r.Offset+unit-1)/unit, r.End()/unit
		if r.End() == int64(len(f.bytes)) {
			end = int64(len(f.allocated))
		}
	}
	for i := first; i < end; i++ {
		f.allocated[i] = allocated
	}
}

// BlockStatus tells what has storage.
func (f *Fake) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	before := len(exts)
	err := f.run(t, request{op: OpStatus, r: r, do: func() {
		at := r.Offset
		for limit := len(exts) + max; at < r.End() && len(exts) < limit; {
			e := f.extentLocked(at, r.End())
			exts = append(exts, e)
			at += e.Length
		}
	}})
	if err != nil || f.backing.Load() == nil {
		return exts, err
	}
	return f.statusBelow(t, r.Offset, exts, before)
}

// extentLocked returns the extent that begins at at.
func (f *Fake) extentLocked(at, end int64) blockcore.Extent {
	unit := f.unit()
	i := at / unit
	is := f.allocated[i]
	for i < int64(len(f.allocated)) && f.allocated[i] == is && i*unit < end {
		i++
	}
	e := blockcore.Extent{Length: min(i*unit, end) - at}
	if is {
		e.Depth = 1
	} else {
		e.Status = blockcore.ExtentHole | blockcore.ExtentZero
	}
	return e
}

// Close ends the use of the disk. Requests inside it break the contract of Driver.
func (f *Fake) Close(t *blockcore.Task) error {
	if n := f.Active(); n > 0 {
		f.log.Add("%s: closed with %d requests inside", f.name, n)
		return syscall.EBUSY
	}
	return f.run(t, request{op: OpClose, do: func() { f.closed = true }})
}

// checkBuffer holds the caller to the contract: memory as aligned as the disk is.
func (f *Fake) checkBuffer(p []byte) error {
	if f.limits.Align > 1 && uintptr(unsafe.Pointer(unsafe.SliceData(p)))&uintptr(min(f.limits.Align, 4096)-1) != 0 {
		f.log.Add("%s: memory is not aligned", f.name)
		return syscall.EINVAL
	}
	return nil
}

// Bare returns d without any of its optional interfaces: what the defaults of the block layer are for.
func Bare(d blockcore.Driver) blockcore.Driver { return bare{d} }

type bare struct{ blockcore.Driver }
