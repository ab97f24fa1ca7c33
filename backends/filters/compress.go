package filters

import (
	"errors"

	"nbd-dataplane/blockcore"
)

// Compress has what is written stored compressed by the child. What is written of a part of one of the child's units is merged with the rest of it.
//
// The child is asked for its unit with each write, and nothing is asked of whoever writes: the range of the child is held while a unit is read and written back, so that
// no zeroing or discarding is lost that comes in between, by the filter or past it.
//
// Analogous to QEMU's compress driver, which has the unit as its alignment, and so no disks that end within one.
type Compress struct{ blockcore.Filter }

var _ blockcore.ChildChecker = (*Compress)(nil)

// NewCompress returns a filter that has everything compressed.
func NewCompress() *Compress { return &Compress{} }

// CheckChildren refuses a child that does not compress.
func (f *Compress) CheckChildren() error {
	if err := f.Filter.CheckChildren(); err != nil {
		return err
	}
	if !f.File().Node().Compresses() {
		return errors.New("Compression is not supported for underlying format")
	}
	return nil
}

// Limits of the filter: a unit is best. Safe from anywhere.
func (f *Compress) Limits() blockcore.Limits {
	l := f.Filter.Limits()
	if e := f.File(); e != nil {
		l.Preferred = max(l.Preferred, e.Node().CompressedUnit())
	}
	return l
}

// WriteAt writes whole units, and merges what is left in front of them and behind.
func (f *Compress) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	n := f.File().Node()
	unit := n.CompressedUnit()
	if unit == 0 {
		return f.Filter.WriteAt(t, p, off, flags|blockcore.WriteCompressed) // which refuses it
	}
	for len(p) > 0 {
		piece, write := unit-off&(unit-1), f.merge
		switch whole := int64(len(p)) &^ (unit - 1); {
		case off&(unit-1) != 0:
		case off+int64(len(p)) == n.Size():
			piece, write = int64(len(p)), f.pass
		case whole > 0:
			piece, write = whole, f.pass
		}
		piece = min(piece, int64(len(p)))
		if err := write(t, p[:piece], off, flags); err != nil {
			return err
		}
		p, off = p[piece:], off+piece
	}
	return nil
}

// pass has the child compress whole units.
func (f *Compress) pass(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	return f.Filter.WriteAt(t, p, off, flags|blockcore.WriteCompressed)
}

// merge writes a part of a unit, together with what is in the rest.
func (f *Compress) merge(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	n := f.File().Node()
	wide := blockcore.Range{Offset: off, Length: int64(len(p))}.Widen(n.CompressedUnit())
	wide.Length = min(wide.Length, n.Size()-wide.Offset)
	buf := t.Buffers().Get(int(wide.Length))
	defer t.Buffers().Put(buf)
	hold := f.File().Hold(t, wide)
	defer hold.Release()
	if err := f.Filter.ReadAt(t, buf, wide.Offset); err != nil {
		return err
	}
	copy(buf[off-wide.Offset:], p)
	return f.Filter.WriteAt(t, buf, wide.Offset, flags|blockcore.WriteCompressed|blockcore.WriteHeld)
}

// compressedUnit is that of the child of a filter that passes compressed writes on.
func compressedUnit(f *blockcore.Filter) int64 {
	if e := f.File(); e != nil {
		return e.Node().CompressedUnit()
	}
	return 0
}
