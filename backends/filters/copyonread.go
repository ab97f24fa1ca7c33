package filters

import "nbd-dataplane/blockcore"

// CopyOnRead writes what is read from below the child, from a backing file, into the child itself, so that the next read finds it
// there. Whether there is something below is the child's to say: the depth in its map.
//
// INVARIANT: what is written back overlaps no write, zeroing or discard of the child and nothing else that is written back there: the range of
// the child is held meanwhile, against those too who come to it past the filter. So old data from below never comes over new data. Reads of what
// the child has need no lock.
//
// Analogous to QEMU's copy-on-read driver.
type CopyOnRead struct{ blockcore.Filter }

// The abilities of a CopyOnRead besides those of a Filter.
var (
	_ blockcore.ChildPermitter = (*CopyOnRead)(nil)
	_ blockcore.Compressor     = (*CopyOnRead)(nil)
)

// NewCopyOnRead returns a filter that copies all that is read.
func NewCopyOnRead() *CopyOnRead { return &CopyOnRead{} }

// ChildPermissions asks for what the parents do, and for writing what is there already.
func (f *CopyOnRead) ChildPermissions(role blockcore.Role, perm, shared blockcore.Permissions) (takes, shares blockcore.Permissions) {
	return perm | blockcore.PermWriteUnchanged, shared | blockcore.PermWriteUnchanged
}

const (
	// extentsMax is how many extents are asked for at once.
	extentsMax = 16
	// prefetchPiece bounds the buffer of a prefetch, in bytes.
	prefetchPiece = 1 << 20
)

// ReadAt reads, and writes back what is not the child's own.
func (f *CopyOnRead) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	r := blockcore.Range{Offset: off, Length: int64(len(p))}
	own, err := f.owns(t, r)
	if err != nil {
		return err
	}
	if own {
		return f.Filter.ReadAt(t, p, off)
	}
	return f.copyUp(t, r, p)
}

// Prefetch brings the range into the child.
func (f *CopyOnRead) Prefetch(t *blockcore.Task, r blockcore.Range) error {
	own, err := f.owns(t, r)
	if err != nil {
		return err
	}
	if own {
		return f.Filter.Prefetch(t, r)
	}
	return f.copyUp(t, r, nil)
}

// owns reports whether all of r is the child's own.
func (f *CopyOnRead) owns(t *blockcore.Task, r blockcore.Range) (bool, error) {
	own := true
	err := f.walk(t, r, func(e blockcore.Extent, at blockcore.Range) (more bool, err error) {
		own = e.Depth == 1
		return own, nil
	})
	return own, err
}

// walk calls visit for each extent of r, as long as it wants more.
func (f *CopyOnRead) walk(t *blockcore.Task, r blockcore.Range, visit func(e blockcore.Extent, at blockcore.Range) (more bool, err error)) error {
	var exts []blockcore.Extent
	for r.Length > 0 {
		var err error
		if exts, err = f.File().BlockStatus(t, r, exts[:0], extentsMax); err != nil {
			return err
		}
		for _, e := range exts {
			more, err := visit(e, blockcore.Range{Offset: r.Offset, Length: e.Length})
			if err != nil || !more {
				return err
			}
			r.Offset += e.Length
			r.Length -= e.Length
		}
	}
	return nil
}

// copyUp has the child own all of r, and fills p with it unless that is nil. As in QEMU, an error of writing back is one of the read.
func (f *CopyOnRead) copyUp(t *blockcore.Task, r blockcore.Range, p []byte) error {
	hold := f.File().Hold(t, r)
	defer hold.Release()
	return f.walk(t, r, func(e blockcore.Extent, at blockcore.Range) (bool, error) {
		var part []byte
		if p != nil {
			part = p[at.Offset-r.Offset : at.End()-r.Offset]
		}
		return true, f.copyExtent(t, e, at, part)
	})
}

func (f *CopyOnRead) copyExtent(t *blockcore.Task, e blockcore.Extent, at blockcore.Range, p []byte) error {
	switch {
	case e.Depth == 1 && p == nil:
		return f.Filter.Prefetch(t, at)
	case e.Depth == 1:
		return f.Filter.ReadAt(t, p, at.Offset)
	case e.Status&blockcore.ExtentZero != 0:
		clear(p)
		return f.Filter.WriteZeroes(t, at, blockcore.ZeroUnchanged|blockcore.ZeroHeld)
	case p != nil:
		return f.copyData(t, p, at.Offset)
	}
	buf := t.Buffers().Get(int(min(at.Length, prefetchPiece)))
	defer t.Buffers().Put(buf)
	for at.Length > 0 {
		piece := buf[:min(at.Length, int64(len(buf)))]
		if err := f.copyData(t, piece, at.Offset); err != nil {
			return err
		}
		at.Offset += int64(len(piece))
		at.Length -= int64(len(piece))
	}
	return nil
}

// copyData fills p from off and writes it back.
func (f *CopyOnRead) copyData(t *blockcore.Task, p []byte, off int64) error {
	if err := f.Filter.ReadAt(t, p, off); err != nil {
		return err
	}
	return f.Filter.WriteAt(t, p, off, blockcore.WriteUnchanged|blockcore.WriteHeld)
}

// CachedFile knows no place: what is read there would not be copied.
func (f *CopyOnRead) CachedFile(blockcore.Range) (fd int, off int64, ok bool) { return 0, 0, false }

// CompressedUnit is the child's. Safe from anywhere.
func (f *CopyOnRead) CompressedUnit() int64 { return compressedUnit(&f.Filter) }
