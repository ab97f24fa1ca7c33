package offline

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// ResizeOptions are how to change the size of a disk.
type ResizeOptions struct {
	SizeBytes     int64
	Preallocation Preallocation
	// Data is the external data file, of images that have one.
	Data File
	// BackingBytes is the size of the disk below, 0 if there is none: what it has behind the old end must not appear in the new part.
	BackingBytes int64
	// Progress may be nil.
	Progress func(done, total int64) error
}

// Resize makes the disk longer or shorter. What is cut off is lost; what is new reads as zeroes, but for the part of a cluster behind the old end, which
// has what was cut off there.
func (im *Image) Resize(o ResizeOptions) error {
	if err := im.MayResize(o.SizeBytes, o.Preallocation); err != nil {
		return err
	}
	if im.header.Has(format.IncompatibleDataFile) && o.Data == nil {
		return syscall.EINVAL
	}
	old := int64(im.header.SizeBytes)
	return im.withoutBitmaps(uint64(o.SizeBytes), func() error {
		if o.SizeBytes < old {
			return im.shrink(o)
		}
		return im.extend(old, o)
	})
}

// MayResize says why the disk cannot have another size, as far as the options and what the image has decide it.
func (im *Image) MayResize(sizeBytes int64, how Preallocation) error {
	switch {
	case sizeBytes < 0 || sizeBytes%format.SectorBytes != 0:
		return invalid("The new size must be a multiple of %d", format.SectorBytes)
	case im.header.Version < 3 && len(im.snapshots) > 0:
		return unsupported("Can't resize a v2 image which has snapshots")
	case sizeBytes < int64(im.header.SizeBytes) && how != PreallocationOff:
		return invalid("Preallocation can't be used for shrinking an image")
	case im.g.L1EntriesFor(uint64(sizeBytes)) > format.L1BytesMax/format.EntryBytes:
		return ErrTooLarge
	}
	ext, has := im.bitmapsExtension()
	if !has {
		return nil
	}
	list, err := im.readBitmaps(ext)
	if err != nil {
		return err
	}
	return im.mayFollow(list, uint64(sizeBytes))
}

// extend makes the disk longer.
func (im *Image) extend(old int64, o ResizeOptions) error {
	if err := im.hideBacking(old, o); err != nil {
		return err
	}
	if im.header.Autoclear&format.AutoclearRawData != 0 {
		o.Preallocation = max(o.Preallocation, PreallocationMetadata)
	}
	if o.Data != nil {
		if err := o.Data.Truncate(o.SizeBytes); err != nil {
			return err
		}
	}
	return im.grow(growth{sizeBytes: uint64(o.SizeBytes), how: o.Preallocation, data: o.Data, progress: o.Progress})
}

func unsupported(text string) error { return &format.Error{Errno: syscall.ENOTSUP, Text: text} }

// hideBacking puts zero clusters where the disk below is longer than this one was.
func (im *Image) hideBacking(old int64, o ResizeOptions) error {
	end := min(o.BackingBytes, o.SizeBytes)
	if end <= old {
		return nil
	}
	switch {
	case im.header.Version < 3:
		return unsupported("the backing file is longer than the image, which has no zero clusters (compat=0.10)")
	case im.g.GuestInCluster(format.Guest(old)) != 0:
		return unsupported(fmt.Sprintf("the backing file is longer than the image, which does not end with a cluster (of %d bytes)", im.g.ClusterBytes()))
	}
	if err := im.growL1(im.g.L1EntriesFor(uint64(o.SizeBytes))); err != nil {
		return err
	}
	zero := format.L2Entry{Descriptor: format.FlagZero}
	if im.g.Extended {
		zero = format.L2Entry{Bits: format.ZeroBits}
	}
	span := int64(im.g.L2Entries()) << im.g.ClusterBits
	for at := old; at < end; at = (at/span + 1) * span {
		table, where, err := im.l2ToChange(format.Guest(at))
		if err != nil {
			return err
		}
		for n := at; n < min(end, (at/span+1)*span); n += im.g.ClusterBytes() {
			im.g.SetL2Entry(table, im.g.L2Index(format.Guest(n)), zero)
		}
		if err := im.flush(); err != nil {
			return err
		}
		if err := im.writeL2(format.Guest(at), table, where); err != nil {
			return err
		}
	}
	return nil
}

// l2ToChange is l2For, but a table that a snapshot has as well gets a copy, which writeL2 puts in its place.
func (im *Image) l2ToChange(at format.Guest) (table []byte, where format.Host, err error) {
	table, where, err = im.l2For(at)
	if err != nil {
		return nil, 0, err
	}
	n, err := im.refcount(im.g.Index(where))
	if err != nil || n <= 1 {
		return table, where, err
	}
	first, err := im.allocate(1)
	return table, im.g.Cluster(first), err
}

// shrink cuts the disk off. The tables are changed first, then what they referred to is given back, and the file is cut off in the end.
func (im *Image) shrink(o ResizeOptions) error {
	end := im.g.Clusters(o.SizeBytes) << im.g.ClusterBits
	span := int64(im.g.L2Entries()) << im.g.ClusterBits
	gone := make([]byte, len(im.l1)) // an L1 table of what is to be given back
	if within := end % span; within != 0 {
		if err := im.shrinkTable(format.Guest(end), gone); err != nil {
			return err
		}
	}
	for i := (end + span - 1) / span; i < int64(len(im.l1)/format.EntryBytes); i++ {
		format.SetEntry(gone, int(i), format.Entry(im.l1, int(i)))
		if err := im.setL1(int(i), 0); err != nil {
			return err
		}
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	if err := im.retain(gone, -1); err != nil {
		return err
	}
	if err := im.settle(); err != nil {
		return err
	}
	if err := im.setSize(uint64(o.SizeBytes)); err != nil {
		return err
	}
	if o.Data != nil {
		if err := o.Data.Truncate(o.SizeBytes); err != nil {
			return err
		}
	}
	if err := im.dropBlocks(); err != nil {
		return err
	}
	return im.cutFile()
}

// shrinkTable empties the end of the L2 table that stays.
func (im *Image) shrinkTable(end format.Guest, gone []byte) error {
	index := im.g.L1Index(end)
	if index >= len(im.l1)/format.EntryBytes || format.L1Entry(format.Entry(im.l1, index)).Offset() == 0 {
		return nil
	}
	// What is cut off goes into a table of its own, so that it is given back like the others, and only when nothing refers to it any more.
	_, old, err := im.l2For(end)
	if err != nil {
		return err
	}
	table, where, err := im.l2ToChange(end)
	if err != nil {
		return err
	}
	rest := make([]byte, len(table))
	cut := im.g.L2Index(end) * im.g.L2EntryBytes()
	copy(rest[cut:], table[cut:])
	clear(table[cut:])
	first, err := im.allocate(1)
	if err != nil {
		return err
	}
	if _, err := im.file.WriteAt(rest, int64(im.g.Cluster(first))); err != nil {
		return err
	}
	if err := im.flush(); err != nil {
		return err
	}
	format.SetEntry(gone, index, uint64(im.g.Cluster(first)))
	if where != old {
		// The copy takes over what the table refers to, each of which a snapshot counts as well.
		return im.writeL2(end, table, where)
	}
	_, err = im.file.WriteAt(table, int64(where))
	return err
}

// cutFile ends the file behind the last cluster in use.
func (im *Image) cutFile() error {
	size, err := im.file.Size()
	if err != nil {
		return err
	}
	last := im.g.Clusters(size)
	for ; last > 0; last-- {
		n, err := im.refcount(last - 1)
		if err != nil {
			return err
		}
		if n != 0 {
			break
		}
	}
	if end := last << im.g.ClusterBits; end < size {
		return im.file.Truncate(end)
	}
	return nil
}
