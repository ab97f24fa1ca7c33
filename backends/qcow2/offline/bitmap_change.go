package offline

import (
	"fmt"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// Granularities of bitmaps, in bits.
const (
	granularityBitsMin = 9
	granularityBitsMax = 31
)

// DefaultGranularityBits is what QEMU takes when nobody says: the cluster size, but 4 KiB to 64 KiB.
func (im *Image) DefaultGranularityBits() uint { return min(max(im.g.ClusterBits, 12), 16) }

// bitmapTableEntries is how long the table of a bitmap of a disk is.
func (im *Image) bitmapTableEntries(sizeBytes uint64, granularityBits uint) int64 {
	roundUp := func(n uint64, bits uint) uint64 {
		return n>>bits + uint64(b2i(n&(1<<bits-1) != 0))
	}
	return int64(roundUp(roundUp(roundUp(sizeBytes, granularityBits), 3), im.g.ClusterBits))
}

// Unkept is why an image cannot keep a bitmap that could be.
type Unkept struct{ Err error }

func (e *Unkept) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *Unkept) Unwrap() error { return e.Err }

// AddBitmap adds a bitmap in which nothing is marked.
func (im *Image) AddBitmap(name string, granularityBits uint) error {
	list, err := im.Bitmaps()
	if err != nil {
		return err
	}
	entries := im.bitmapTableEntries(im.header.SizeBytes, granularityBits)
	switch {
	case im.header.Version < 3:
		return &Unkept{unsupported("Cannot store dirty bitmaps in qcow2 v2 files")}
	case name == "":
		return invalid("Bitmap name cannot be empty")
	case len(name) > format.BitmapNameMax:
		return &Unkept{invalid("Name length exceeds maximum (%d characters)", format.BitmapNameMax)}
	case granularityBits < granularityBitsMin || granularityBits > granularityBitsMax:
		return invalid("Granularity must be power of 2 and at least 512")
	case len(list) >= format.BitmapsMax:
		return &Unkept{invalid("Maximum number of persistent bitmaps is already reached")}
	case entries == 0 || entries > format.BitmapTableEntriesMax || entries<<im.g.ClusterBits > format.BitmapBytesMax:
		return &Unkept{invalid("Too much space will be occupied by the bitmap. Use larger granularity")}
	case findBitmap(list, name) >= 0:
		return invalid("Bitmap already exists: %s", name)
	}
	clusters := im.g.Clusters(entries * format.EntryBytes)
	first, err := im.allocate(clusters)
	if err != nil {
		return err
	}
	if _, err := im.file.WriteAt(make([]byte, clusters<<im.g.ClusterBits), int64(im.g.Cluster(first))); err != nil {
		return err
	}
	return im.writeBitmaps(append(list, format.Bitmap{
		TableOffset: im.g.Cluster(first), TableEntries: uint32(entries), Flags: format.BitmapAuto,
		Type: format.BitmapDirtyTracking, GranularityBits: uint8(granularityBits), Name: name,
	}))
}

func findBitmap(list []format.Bitmap, name string) int {
	return slices.IndexFunc(list, func(b format.Bitmap) bool { return b.Name == name })
}

// bitmap finds a bitmap; one that was in use when its user died can only be removed.
func (im *Image) bitmap(name string, sound bool) (list []format.Bitmap, i int, err error) {
	if list, err = im.Bitmaps(); err != nil {
		return nil, 0, err
	}
	switch i = findBitmap(list, name); {
	case i < 0:
		return nil, 0, invalid("Dirty bitmap '%s' not found", name)
	case sound && list[i].Flags&format.BitmapInUse != 0:
		return nil, 0, invalid("Bitmap '%s' is inconsistent and cannot be used", name)
	}
	return list, i, nil
}

// RemoveBitmap removes a bitmap.
func (im *Image) RemoveBitmap(name string) error {
	list, i, err := im.bitmap(name, false)
	if err != nil {
		return err
	}
	gone := list[i]
	table, err := im.bitmapEntries(&gone)
	if err != nil {
		return err
	}
	if err := im.writeBitmaps(slices.Delete(list, i, i+1)); err != nil {
		return err
	}
	if err := im.releaseBits(table); err != nil {
		return err
	}
	if err := im.release(gone.TableOffset, im.g.Clusters(int64(len(table)))); err != nil {
		return err
	}
	return im.flush()
}

// ClearBitmap marks nothing in a bitmap.
func (im *Image) ClearBitmap(name string) error {
	list, i, err := im.bitmap(name, true)
	if err != nil {
		return err
	}
	table, err := im.bitmapEntries(&list[i])
	if err != nil {
		return err
	}
	if _, err := im.file.WriteAt(make([]byte, len(table)), int64(list[i].TableOffset)); err != nil {
		return err
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	if err := im.releaseBits(table); err != nil {
		return err
	}
	return im.flush()
}

// EnableBitmap says whether writes are to be marked.
func (im *Image) EnableBitmap(name string, enabled bool) error {
	list, i, err := im.bitmap(name, true)
	if err != nil {
		return err
	}
	list[i].Flags &^= format.BitmapAuto
	if enabled {
		list[i].Flags |= format.BitmapAuto
	}
	return im.writeBitmaps(list)
}

func (im *Image) bitmapEntries(b *format.Bitmap) ([]byte, error) {
	return im.readTable(b.TableOffset, int64(b.TableEntries)*format.EntryBytes)
}

// releaseBits gives back what a bitmap's table refers to.
func (im *Image) releaseBits(table []byte) error {
	for i := range len(table) / format.EntryBytes {
		e := format.BitmapEntry(format.Entry(table, i))
		if !e.Valid(im.g) {
			return &Damaged{What: "bitmap table entry", Offset: e.Offset()}
		}
		if e.Offset() == 0 {
			continue
		}
		if err := im.release(e.Offset(), 1); err != nil {
			return err
		}
	}
	return nil
}

// writeBitmaps writes a new bitmap directory and gives the old one back.
func (im *Image) writeBitmaps(list []format.Bitmap) error {
	old, had := im.bitmapsExtension()
	if len(list) == 0 {
		im.header.SetExtension(format.ExtensionBitmaps, nil)
		im.header.Autoclear &^= format.AutoclearBitmaps
	} else {
		directory := format.MarshalBitmapDirectory(list)
		if len(directory) > format.BitmapDirectoryBytesMax {
			return &format.Error{Errno: syscall.EFBIG, Text: fmt.Sprintf("Not enough space in the bitmap directory for %d bitmaps", len(list))}
		}
		clusters := im.g.Clusters(int64(len(directory)))
		first, err := im.allocate(clusters)
		if err != nil {
			return err
		}
		if _, err := im.file.WriteAt(padded(directory, clusters<<im.g.ClusterBits), int64(im.g.Cluster(first))); err != nil {
			return err
		}
		ext := format.BitmapsExtension{Count: uint32(len(list)), DirectoryBytes: uint64(len(directory)), DirectoryOffset: im.g.Cluster(first)}
		im.header.SetExtension(format.ExtensionBitmaps, ext.Marshal())
		im.header.Autoclear |= format.AutoclearBitmaps
	}
	if err := im.flush(); err != nil {
		return err
	}
	if err := im.writeHeader(); err != nil {
		return err
	}
	size, err := im.file.Size()
	if err != nil {
		return err
	}
	im.fileBytes = size
	if had {
		if err := im.release(old.DirectoryOffset, im.g.Clusters(int64(old.DirectoryBytes))); err != nil {
			return err
		}
	}
	return im.flush()
}
