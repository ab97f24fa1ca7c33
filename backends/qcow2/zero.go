package qcow2

import (
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// WriteZeroes has a range read as zeroes: by L2 entries, and at its ends by writing.
func (i *Image) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.unmarked { // what reads as zeroes already is marked in the bitmaps too
		if err := i.mark(t); err != nil {
			return err
		}
	}
	middle := i.inner(r, i.g.SubclusterBytes())
	switch {
	case i.version < 3, i.externRaw && flags&blockcore.ZeroNoFallback != 0:
		return syscall.ENOTSUP
	case middle.Length == 0:
		zero, err := i.readsZero(t, format.Guest(r.Offset), r.Length)
		if err == nil && !zero {
			err = syscall.ENOTSUP
		}
		if err != nil {
			return err
		}
		return i.zeroesStay(t, flags) // they need not be on disk yet
	}
	if err := i.zeroMiddle(t, middle, flags); err != nil {
		return err
	}
	if err := i.zeroEnd(t, r.Offset, middle.Offset); err != nil {
		return err
	}
	if err := i.zeroEnd(t, middle.End(), r.End()); err != nil {
		return err
	}
	return i.zeroesStay(t, flags)
}

// zeroesStay makes durable what was zeroed, where that is asked for.
func (i *Image) zeroesStay(t *blockcore.Task, flags blockcore.ZeroFlags) error {
	if flags&blockcore.ZeroFUA != 0 || i.through {
		return i.Flush(t)
	}
	return nil
}

// inner is the part of r that is made of whole units. What ends with the disk ends with a unit.
func (i *Image) inner(r blockcore.Range, unit int64) blockcore.Range {
	begin := (r.Offset + unit - 1) &^ (unit - 1)
	end := r.End() &^ (unit - 1)
	if r.End() >= i.Size() {
		end = (r.End() + unit - 1) &^ (unit - 1)
	}
	return blockcore.Range{Offset: begin, Length: max(end-begin, 0)}
}

// zeroEnd writes zeroes to a part of a unit, if there is anything else.
func (i *Image) zeroEnd(t *blockcore.Task, from, to int64) error {
	if from >= to {
		return nil
	}
	zero, err := i.readsZero(t, format.Guest(from), to-from)
	if zero || err != nil {
		return err
	}
	return i.writeZeroBytes(t, from, to)
}

func (i *Image) writeZeroBytes(t *blockcore.Task, from, to int64) error {
	buf := t.Buffers().Get(int(min(to-from, pieceBytes)))
	defer t.Buffers().Put(buf)
	clear(buf)
	for from < to {
		p := buf[:min(to-from, int64(len(buf)))]
		if err := i.writeRange(t, p, format.Guest(from), 0); err != nil {
			return err
		}
		from += int64(len(p))
	}
	return nil
}

// zeroMiddle zeroes whole subclusters.
func (i *Image) zeroMiddle(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	if i.externRaw { // who reads the file alone is to see them too
		below := r
		below.Length = min(below.Length, max(i.Size()-r.Offset, 0))
		if err := i.zeroData(t, format.Host(below.Offset), below.Length); err != nil {
			return err
		}
	}
	unmap := i.options.Unmap && flags&blockcore.ZeroMayUnmap != 0
	for r.Length > 0 {
		n, err := i.changeEntries(t, r, freeRequest, func(e format.L2Entry, from, to int64) (format.L2Entry, bool, bool) {
			return i.zeroed(e, from, to, unmap)
		})
		if err != nil {
			return err
		}
		r.Offset, r.Length = r.Offset+n, r.Length-n
		if r.Length == 0 {
			break
		}
		// A part of a compressed cluster.
		part := min(i.g.ClusterBytes()-r.Offset&(i.g.ClusterBytes()-1), r.Length)
		if err := i.writeZeroBytes(t, r.Offset, r.Offset+part); err != nil {
			return err
		}
		r.Offset, r.Length = r.Offset+part, r.Length-part
	}
	return nil
}

// zeroed is an L2 entry after zeroing.
func (i *Image) zeroed(e format.L2Entry, from, to int64, unmap bool) (next format.L2Entry, frees, ok bool) {
	whole := to-from == i.g.ClusterBytes()
	if e.Compressed() && !whole {
		return e, false, false
	}
	if whole && (unmap || e.Compressed()) {
		if i.g.Extended {
			return format.L2Entry{Bits: format.ZeroBits}, true, true
		}
		return format.L2Entry{Descriptor: format.FlagZero}, true, true
	}
	if !i.g.Extended {
		return format.L2Entry{Descriptor: e.Descriptor | format.FlagZero}, false, true
	}
	bits := i.subclusters(format.Guest(from), format.Guest(to))
	e.Bits = e.Bits&^bits | bits<<format.SubclustersPerCluster
	return e, false, true
}
