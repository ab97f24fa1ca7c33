package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Discard gives whole clusters back. As in QEMU they read as zeroes then where the format can say so, and where it cannot and something would come up
// from below, they stay.
func (i *Image) Discard(t *blockcore.Task, r blockcore.Range) error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.unmarked { // what is not given back is marked in the bitmaps too
		if err := i.mark(t); err != nil {
			return err
		}
	}
	switch {
	case !i.options.Unmap, i.version < 3 && i.backing.Load() != nil:
		return nil
	case i.externRaw: // whatever is in the file then is in the image too
		return i.data.Load().Discard(t, r, false)
	}
	r = i.inner(r, i.g.ClusterBytes())
	if r.Length == 0 {
		return nil
	}
	_, err := i.changeEntries(t, r, freeRequest, i.discarded)
	if err == nil && i.external && i.passes[freeRequest] {
		e := i.data.Load()
		if r.Length = min(r.End(), e.Node().Size()) - r.Offset; r.Length > 0 {
			_ = e.Discard(t, r, false)
		}
	}
	return err
}

// discarded is an L2 entry after a discard of its cluster.
func (i *Image) discarded(e format.L2Entry, from, to int64) (next format.L2Entry, frees, ok bool) {
	empty := e.Descriptor == 0 && e.Bits&format.ZeroBits == 0
	switch {
	case empty && i.backing.Load() == nil:
		return e, false, true
	case i.version < 3:
		return format.L2Entry{}, true, true
	case i.g.Extended:
		return format.L2Entry{Bits: format.ZeroBits}, true, true
	}
	return format.L2Entry{Descriptor: format.FlagZero}, true, true
}

// dropped is an L2 entry after its cluster was given up for good.
func dropped(format.L2Entry, int64, int64) (next format.L2Entry, frees, ok bool) {
	return format.L2Entry{}, true, true
}
