package blocktest

import (
	"slices"

	"nbd-dataplane/blockcore"
)

// SetChild puts the disk on top of another one, in blockcore.RoleBacking, as an image format does: where nothing is allocated the
// other one shows, and nothing that has been allocated is ever given back.
func (f *Fake) SetChild(role blockcore.Role, e *blockcore.Edge) {
	if role == blockcore.RoleBacking {
		f.backing.Store(e)
	}
}

// ChildPermissions reads from the backing disk, and does not mind what others do with it.
func (f *Fake) ChildPermissions(role blockcore.Role, perm, shared blockcore.Permissions) (takes, shares blockcore.Permissions) {
	return blockcore.PermRead, blockcore.PermAll
}

// below returns what the backing disk has in the units that r touches, or nil when there is none. Where the disk itself has something it
// is not looked at.
func (f *Fake) below(t *blockcore.Task, r blockcore.Range) ([]byte, error) {
	e := f.backing.Load()
	if e == nil || r.Length == 0 {
		return nil, nil
	}
	wide := f.units(r)
	data := make([]byte, wide.Length)
	in := max(min(e.Node().Size(), wide.End())-wide.Offset, 0)
	if in == 0 || f.has(wide) {
		return data, nil
	}
	buf := t.Buffers().Get(int(in))
	defer t.Buffers().Put(buf)
	if err := e.Read(t, buf, wide.Offset); err != nil {
		return nil, err
	}
	copy(data, buf)
	return data, nil
}

// units is the smallest range of whole units, or up to the end of the disk, that holds r.
func (f *Fake) units(r blockcore.Range) blockcore.Range {
	unit := f.unit()
	begin := r.Offset / unit * unit
	return blockcore.Range{Offset: begin, Length: min((r.End()+unit-1)/unit*unit, f.Size()) - begin}
}

// has reports whether all of r is allocated.
func (f *Fake) has(r blockcore.Range) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	unit := f.unit()
	return !slices.Contains(f.allocated[r.Offset/unit:(r.End()+unit-1)/unit], false)
}

// fillLocked copies what is below into the units of r that have nothing of their own. They stay unallocated.
func (f *Fake) fillLocked(r blockcore.Range, below []byte) {
	if below == nil {
		return
	}
	unit := f.unit()
	begin := r.Offset / unit * unit
	for at := begin; at < begin+int64(len(below)); at += unit {
		if !f.allocated[at/unit] {
			copy(f.bytes[at:min(at+unit, int64(len(f.bytes)))], below[at-begin:])
		}
	}
}

// statusBelow has the backing disk tell of the extents of exts[from:], which begin at off, that are not allocated. It cuts the
// list behind the first of them.
func (f *Fake) statusBelow(t *blockcore.Task, off int64, exts []blockcore.Extent, from int) ([]blockcore.Extent, error) {
	e := f.backing.Load()
	for i := from; i < len(exts); i++ {
		r := blockcore.Range{Offset: off, Length: exts[i].Length}
		off = r.End()
		if exts[i].Depth != 0 || r.Offset >= e.Node().Size() {
			continue
		}
		r.Length = min(r.Length, e.Node().Size()-r.Offset)
		one, err := e.BlockStatus(t, r, nil, 1)
		if err != nil {
			return exts, err
		}
		if one[0].Depth > 0 {
			one[0].Depth++
		}
		exts[i] = one[0]
		return exts[:i+1], nil
	}
	return exts, nil
}

// Resize gives the disk another length. What is new reads as zeroes, whatever is below.
func (f *Fake) Resize(t *blockcore.Task, sizeBytes int64) error {
	return f.run(t, request{op: OpResize, do: func() {
		unit := f.unit()
		bytes, allocated := make([]byte, sizeBytes), make([]bool, (sizeBytes+unit-1)/unit)
		copy(bytes, f.bytes)
		for i := copy(allocated, f.allocated); i < len(allocated); i++ {
			allocated[i] = f.backing.Load() != nil
		}
		f.bytes, f.allocated = bytes, allocated
	}})
}

// Extend makes the disk longer.
func (f *Fake) Extend(t *blockcore.Task, toBytes int64) error {
	if toBytes <= f.Size() {
		return nil
	}
	return f.Resize(t, toBytes)
}
