package qcow2

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// storeBitmaps writes the bitmaps that are to be kept, when nothing else is in flight:
//
//	1  bits, tables, directory, in new clusters
//	2  a commit: their refcounts, all that the bitmaps tell of     -> sync
//	3  the header leads to them                                    -> sync
//	4  the old ones are free
//
// A crash before 3 leaves the old ones, which say that they are in use.
func (i *Image) storeBitmaps(t *blockcore.Task) error {
	b := &i.bitmaps
	b.work.enter(t)
	defer b.work.leave()
	if !i.toStore() {
		return nil
	}
	s := &storing{i: i}
	if err := s.all(t); err != nil {
		s.giveUp(t)
		return fmt.Errorf("Lost persistent bitmaps during inactivation of the image: %w", err)
	}
	b.inUse, b.mayBeInUse = false, false
	i.unmarked = len(b.entries) > 0
	return nil
}

// toStore reports whether the disk has not got the bitmaps as they are.
func (i *Image) toStore() bool {
	b := &i.bitmaps
	return b.list != nil && (b.inUse || b.mayBeInUse || i.lacksBitmap())
}

// lacksBitmap reports whether there is a bitmap to be kept that is not on disk.
func (i *Image) lacksBitmap() bool {
	b := &i.bitmaps
	return slices.ContainsFunc(b.list.All(), func(m *blockcore.Bitmap) bool {
		info := m.Info()
		return info.Persistent && !info.Inconsistent && b.entry(info.Name) < 0
	})
}

// entry finds a bitmap in the directory; negative = it is not there.
func (b *bitmaps) entry(name string) int {
	return slices.IndexFunc(b.entries, func(e format.Bitmap) bool { return e.Name == name })
}

// storing is one change of what is on disk.
type storing struct {
	// Owned by the context.
	i       *Image
	entries []format.Bitmap
	made    []run   // in use by nothing yet
	old     []freed // when the change is done
}

// all stores all bitmaps: those that are on disk at their places in the directory, new ones behind them, the newest first, as QEMU does.
func (s *storing) all(t *blockcore.Task) error {
	b := &s.i.bitmaps
	list := b.list.All()
	s.entries = make([]format.Bitmap, 0, len(list))
	for k := range b.entries {
		e := &b.entries[k]
		m := b.list.Find(e.Name)
		if m == nil || m.Info().Inconsistent {
			s.entries = append(s.entries, *e) // cannot be used, or is none of ours
			continue
		}
		s.frees(t, e)
		if err := s.one(t, m); err != nil {
			return err
		}
	}
	for _, m := range list {
		if info := m.Info(); !info.Persistent || info.Inconsistent || b.entry(info.Name) >= 0 {
			continue
		}
		if err := s.one(t, m); err != nil {
			return err
		}
	}
	return s.directory(t)
}

// one writes one bitmap.
func (s *storing) one(t *blockcore.Task, m *blockcore.Bitmap) error {
	i, info := s.i, m.Info()
	table := make([]uint64, i.tableEntries(m.Bits()))
	buf := t.Buffers().Get(int(i.g.ClusterBytes()))
	defer t.Buffers().Put(buf)
	for k := range table {
		none, all := m.ReadBits(buf, int64(k)*i.bitsPerCluster())
		switch {
		case none:
			continue
		case all:
			table[k] = uint64(format.NewBitmapEntry(0, true))
			continue
		}
		r, err := s.allocate(t, 1, "bitmap")
		if err != nil {
			return err
		}
		if err := i.writeMeta(t, buf, r.host, metaNone); err != nil {
			return err
		}
		table[k] = uint64(format.NewBitmapEntry(r.host, false))
	}
	e := format.Bitmap{
		TableEntries: uint32(len(table)), Type: format.BitmapDirtyTracking, GranularityBits: uint8(info.GranularityBits), Name: info.Name,
	}
	if info.Enabled {
		e.Flags |= format.BitmapAuto
	}
	if len(table) == 0 {
		return nil // of a disk without anything: the format has no such bitmap
	}
	r, err := s.allocate(t, i.g.Clusters(int64(len(table))*format.EntryBytes), "bitmap table")
	if err != nil {
		return err
	}
	e.TableOffset = r.host
	s.entries = append(s.entries, e)
	return i.writeEntries(t, table, r.host)
}

func (s *storing) allocate(t *blockcore.Task, count int64, what string) (run, error) {
	r, err := s.i.allocateTogether(t, count, what)
	if err == nil {
		s.made = append(s.made, r)
	}
	return r, err
}

// frees notes the clusters of a bitmap that is on disk. If its table cannot be read they are lost until the image is checked.
func (s *storing) frees(t *blockcore.Task, e *format.Bitmap) {
	i := s.i
	err := i.eachBitmapEntry(t, e, func(_ int64, entry format.BitmapEntry) error {
		if at := entry.Offset(); at != 0 {
			s.add(i.g.Index(at), 1)
		}
		return nil
	})
	if err != nil {
		i.warn(fmt.Sprintf("qcow2: clusters of bitmap '%s' are lost until the image is checked: %v", e.Name, err))
	}
	s.add(i.g.Index(e.TableOffset), i.g.Clusters(int64(e.TableEntries)*format.EntryBytes))
}

func (s *storing) add(first, count int64) {
	if last := len(s.old) - 1; last >= 0 && s.old[last].first+s.old[last].count == first {
		s.old[last].count += count
		return
	}
	s.old = append(s.old, freed{first: first, count: count, kind: freeOther})
}

// directory writes the directory and has the header lead to it.
func (s *storing) directory(t *blockcore.Task) error {
	i, b := s.i, &s.i.bitmaps
	var ext []byte
	var at run
	p := format.MarshalBitmapDirectory(s.entries)
	if len(s.entries) > 0 {
		var err error
		if at, err = s.allocate(t, i.g.Clusters(int64(len(p))), "bitmap directory"); err != nil {
			return err
		}
		whole := make([]byte, at.count<<i.g.ClusterBits)
		copy(whole, p)
		if err := i.writePieces(t, whole, at.host, metaNone); err != nil {
			return err
		}
		e := format.BitmapsExtension{Count: uint32(len(s.entries)), DirectoryBytes: uint64(len(p)), DirectoryOffset: at.host}
		ext = e.Marshal()
	}
	if err := i.commit(t); err != nil {
		return err
	}
	s.made = nil // the header may lead there, whether writing it works or not
	if err := i.leadToBitmaps(t, ext); err != nil {
		return err
	}
	if b.bytes > 0 {
		s.add(i.g.Index(b.at), i.g.Clusters(b.bytes))
	}
	b.entries, b.at, b.bytes = s.entries, at.host, int64(len(p))
	i.metas.set(metaBitmapDirectory, i.g.Index(at.host), i.g.Index(at.host)+at.count)
	for _, f := range s.old {
		i.free(f)
	}
	return nil
}

// leadToBitmaps changes the header; a nil ext: there are no bitmaps. An extension that comes or goes moves
// what follows it, the name of the backing file too: one sector has to do then, if it can, and the table of the names of features, which nobody needs, makes
// room. A change that one sector cannot make is made while the header says that there are none.
func (i *Image) leadToBitmaps(t *blockcore.Task, ext []byte) error {
	set := func(h *format.Header) {
		h.Extensions = slices.Clone(h.Extensions)
		h.SetExtension(format.ExtensionBitmaps, slices.Clone(ext))
		h.Autoclear &= format.AutoclearKnown &^ format.AutoclearBitmaps
		if ext != nil {
			h.Autoclear |= format.AutoclearBitmaps
		}
	}
	next := *i.header
	set(&next)
	p, err := next.Marshal()
	if err != nil {
		return err
	}
	from, to := changedSectors(i.first, append(p, make([]byte, len(i.first)-len(p))...))
	switch {
	case min(to-from, len(p), i.firstBytes) <= format.SectorBytes:
		return i.changeHeader(t, set)
	case len(ext) == 0 || i.header.Extension(format.ExtensionBitmaps) == nil: // what follows the extension moves
		next.SetExtension(format.ExtensionFeatures, nil)
		if p, err = next.Marshal(); err == nil && len(p) <= format.SectorBytes {
			return i.changeHeader(t, func(h *format.Header) { set(h); h.SetExtension(format.ExtensionFeatures, nil) })
		}
	}
	steps := []func(h *format.Header){
		func(h *format.Header) { h.Autoclear &^= format.AutoclearBitmaps },
		func(h *format.Header) { set(h); h.Autoclear &^= format.AutoclearBitmaps },
		set,
	}
	for _, step := range steps {
		if err := i.changeHeader(t, step); err != nil {
			return err
		}
	}
	return nil
}

// giveUp gives back what was allocated for a change that has failed. What a commit has written stays until the image is checked.
func (s *storing) giveUp(t *blockcore.Task) {
	for _, r := range s.made {
		s.i.release(t, r)
	}
}

// DropKept takes a bitmap off the disk at once, as QEMU does.
func (i *Image) DropKept(t *blockcore.Task, name string) error {
	b := &i.bitmaps
	b.work.enter(t)
	defer b.work.leave()
	k := b.entry(name)
	switch {
	case k < 0:
		return nil
	case i.readOnly:
		return syscall.EACCES
	}
	if err := errors.Join(i.writable(), i.soilImage(t)); err != nil {
		return err
	}
	s := &storing{i: i, entries: slices.Delete(slices.Clone(b.entries), k, k+1)}
	s.frees(t, &b.entries[k])
	if err := s.directory(t); err != nil {
		s.giveUp(t)
		return fmt.Errorf("Failed to update bitmap extension: %w", err)
	}
	return i.commit(t)
}
