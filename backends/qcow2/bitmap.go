package qcow2

import (
	"fmt"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Persistent bitmaps are in memory while the image is used, as the bitmaps of its node, and what is on disk is one of:
//
//	as it was found      nothing has been written since: the bitmaps on disk are right
//	in use               from the first change on: who finds that after a crash knows that they are not
//	stored               when the image is closed, or not to be written any more
//
// They are stored beside the old ones, and a change of one sector of the header leads to them.

var _ blockcore.BitmapKeeper = (*Image)(nil)

// bitmaps are those of an image. Owned by the context.
type bitmaps struct {
	list *blockcore.Bitmaps
	// entries is the directory as it is on disk, at and bytes where that is; bytes = 0: there is none.
	entries []format.Bitmap
	at      format.Host
	bytes   int64
	// inUse: the disk says so. mayBeInUse: it may, since writing that has failed.
	inUse, mayBeInUse bool
	// work is changes of what is on disk.
	work single
}

// loadBitmaps reads the bitmaps of the image.
func (i *Image) loadBitmaps(t *blockcore.Task, o Options) error {
	b := &i.bitmaps
	b.list = blockcore.NewBitmaps(i.Size)
	e := i.header.Extension(format.ExtensionBitmaps)
	switch {
	case e == nil:
		return nil
	case i.header.Autoclear&format.AutoclearBitmaps == 0:
		if !o.ReadOnly && o.Warn != nil {
			o.Warn("a program lacking bitmap support may modify this file, so all bitmaps are now considered inconsistent")
		}
		return nil
	}
	ext, err := format.ParseBitmaps(e.Data, i.g)
	if err != nil {
		return err
	}
	b.at, b.bytes = ext.DirectoryOffset, int64(ext.DirectoryBytes)
	buf := make([]byte, b.bytes)
	if err := i.readPieces(t, buf, b.at); err != nil {
		return fmt.Errorf("Failed to read bitmap directory: %w", err)
	}
	if b.entries, err = format.ParseBitmapDirectory(buf, ext, i.g, int64(i.header.SizeBytes)); err != nil {
		return err
	}
	for k := range b.entries {
		if err := i.loadBitmap(t, &b.entries[k]); err != nil {
			return err
		}
	}
	b.list.SetReadOnly(o.ReadOnly)
	return nil
}

// Bitmaps returns the bitmaps that the image keeps, and those of its node. Safe from anywhere.
func (i *Image) Bitmaps() *blockcore.Bitmaps { return i.bitmaps.list }

// readPieces reads what may be longer than one buffer.
func (i *Image) readPieces(t *blockcore.Task, p []byte, at format.Host) error {
	buf := t.Buffers().Get(int(min(int64(len(p)), pieceBytes)))
	defer t.Buffers().Put(buf)
	for done := 0; done < len(p); done += len(buf) {
		n := min(len(buf), len(p)-done)
		if err := readHost(t, i.file.Load(), buf[:n], at+format.Host(done)); err != nil {
			return err
		}
		copy(p[done:], buf[:n])
	}
	return nil
}

// loadBitmap reads one bitmap. One that was in use is only known by name.
func (i *Image) loadBitmap(t *blockcore.Task, e *format.Bitmap) error {
	state := blockcore.BitmapState{Persistent: true, Enabled: e.Flags&format.BitmapAuto != 0}
	if e.Flags&format.BitmapInUse != 0 {
		state.Inconsistent, state.Enabled = true, false
	}
	b, err := i.bitmaps.list.Add(e.Name, uint(e.GranularityBits), state)
	if err != nil || state.Inconsistent {
		return err
	}
	if i.tableEntries(b.Bits()) != int64(e.TableEntries) {
		return fmt.Errorf("Could not read bitmap '%s' from image: %w", e.Name, syscall.EINVAL)
	}
	err = i.eachBitmapEntry(t, e, func(k int64, entry format.BitmapEntry) error { return i.loadBits(t, b, k, entry) })
	if err != nil {
		return fmt.Errorf("Could not read bitmap '%s' from image: %w", e.Name, err)
	}
	return nil
}

// bitsPerCluster is how many bits one entry of a table stands for.
func (i *Image) bitsPerCluster() int64 { return i.g.ClusterBytes() * 8 }

// tableEntries is how long the table of a bitmap is.
func (i *Image) tableEntries(bits int64) int64 { return i.g.Clusters((bits + 7) / 8) }

// eachBitmapEntry calls fn for each entry of a bitmap's table.
func (i *Image) eachBitmapEntry(t *blockcore.Task, b *format.Bitmap, fn func(k int64, e format.BitmapEntry) error) error {
	all := int64(b.TableEntries)
	buf := t.Buffers().Get(int(min(all*format.EntryBytes, pieceBytes)))
	defer t.Buffers().Put(buf)
	per := int64(len(buf) / format.EntryBytes)
	for first := int64(0); first < all; first += per {
		p := buf[:min(per, all-first)*format.EntryBytes]
		if err := readHost(t, i.file.Load(), p, b.TableOffset+format.Host(first*format.EntryBytes)); err != nil {
			return err
		}
		for k := range len(p) / format.EntryBytes {
			e := format.BitmapEntry(format.Entry(p, k))
			if !e.Valid(i.g) {
				return syscall.EINVAL
			}
			if err := fn(first+int64(k), e); err != nil {
				return err
			}
		}
		t.Yield()
	}
	return nil
}

// loadBits reads the bits of one entry.
func (i *Image) loadBits(t *blockcore.Task, b *blockcore.Bitmap, k int64, e format.BitmapEntry) error {
	per := i.bitsPerCluster()
	switch {
	case e.Offset() == 0 && e.AllOnes():
		b.SetBits(k*per, (k+1)*per)
		return nil
	case e.Offset() == 0:
		return nil
	}
	buf := t.Buffers().Get(int(i.g.ClusterBytes()))
	defer t.Buffers().Put(buf)
	if err := readHost(t, i.file.Load(), buf, e.Offset()); err != nil {
		return err
	}
	b.WriteBits(buf, k*per)
	return nil
}

// ChangeKept has the disk say that the bitmaps are in use.
func (i *Image) ChangeKept(t *blockcore.Task) error {
	if i.readOnly || !i.unmarked {
		return nil
	}
	return i.mark(t)
}

// mark takes away, before the first write, what is not true any more when we write: autoclear features that we do not know, and that the bitmaps on disk
// have all changes in them.
func (i *Image) mark(t *blockcore.Task) error {
	i.bitmaps.work.enter(t)
	defer i.bitmaps.work.leave()
	if !i.unmarked {
		return nil
	}
	if i.unsure || i.header.Autoclear&^format.AutoclearKnown != 0 {
		err := i.changeHeader(t, func(h *format.Header) { h.Autoclear &= format.AutoclearKnown })
		if err != nil {
			return err
		}
	}
	if err := i.useBitmaps(t); err != nil {
		return err
	}
	i.unmarked = false // and not before: others wait for it
	return nil
}

// useBitmaps marks the bitmaps on disk as in use, where they are: a flag lies in one sector, so each is there or is not.
func (i *Image) useBitmaps(t *blockcore.Task) error {
	b := &i.bitmaps
	if b.inUse || len(b.entries) == 0 {
		return nil
	}
	entries := slices.Clone(b.entries)
	for k := range entries {
		entries[k].Flags |= format.BitmapInUse
	}
	p := format.MarshalBitmapDirectory(entries)
	if int64(len(p)) != b.bytes {
		return fmt.Errorf("qcow2: the bitmap directory has %d bytes where %d are expected: %w", b.bytes, len(p), syscall.EIO)
	}
	b.mayBeInUse = true
	if err := i.writePieces(t, p, b.at, metaBitmapDirectory); err != nil {
		return err
	}
	if err := i.file.Load().Flush(t); err != nil {
		return err
	}
	b.entries, b.inUse = entries, true
	return nil
}

// writePieces writes metadata that may be longer than one buffer.
func (i *Image) writePieces(t *blockcore.Task, p []byte, at format.Host, kind metaKind) error {
	buf := t.Buffers().Get(int(min(int64(len(p)), pieceBytes)))
	defer t.Buffers().Put(buf)
	for done := 0; done < len(p); done += len(buf) {
		n := copy(buf, p[done:])
		if err := i.writeMeta(t, buf[:n], at+format.Host(done), kind); err != nil {
			return err
		}
	}
	return nil
}

// MayKeep returns why a bitmap cannot be kept, in QEMU's words.
func (i *Image) MayKeep(_ *blockcore.Task, name string, granularityBits uint) error {
	if i.version < 3 {
		return fmt.Errorf("Cannot store dirty bitmaps in qcow2 v2 files")
	}
	if len(name) > format.BitmapNameMax {
		return fmt.Errorf("Name length exceeds maximum (%d characters)", format.BitmapNameMax)
	}
	count, bytes := 1, len(format.MarshalBitmapDirectory([]format.Bitmap{{Name: name}}))
	for _, b := range i.bitmaps.list.All() {
		if info := b.Info(); info.Persistent && info.Name != name {
			count++
			bytes += len(format.MarshalBitmapDirectory([]format.Bitmap{{Name: info.Name}}))
		}
	}
	bits := (i.Size() + 1<<granularityBits - 1) >> granularityBits
	switch {
	case count > format.BitmapsMax:
		return fmt.Errorf("Maximum number of persistent bitmaps is already reached")
	case bytes > format.BitmapDirectoryBytesMax:
		return fmt.Errorf("Not enough space in the bitmap directory")
	case (bits+7)/8 > format.BitmapBytesMax || i.tableEntries(bits) > format.BitmapTableEntriesMax:
		return fmt.Errorf("Too much space will be occupied by the bitmap. Use larger granularity")
	}
	return nil
}
