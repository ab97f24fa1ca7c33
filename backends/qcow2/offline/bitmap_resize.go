package offline

import (
	"slices"

	"nbd-dataplane/backends/qcow2/format"
)

// withoutBitmaps changes the size of the disk by resize, and has the bitmaps follow: what is marked stays so, and what is new is not marked. The image has no
// bitmaps meanwhile, since those of another size would not be bitmaps; a power cut in between loses them.
func (im *Image) withoutBitmaps(sizeBytes uint64, resize func() error) error {
	ext, had := im.bitmapsExtension()
	if !had {
		return resize()
	}
	list, err := im.readBitmaps(ext)
	if err != nil {
		return err
	}
	before := im.header.SizeBytes
	if err := im.leadToBitmaps(nil); err != nil {
		return err
	}
	if err := resize(); err != nil {
		if im.header.SizeBytes == before {
			_ = im.leadToBitmaps(&ext)
		}
		return err
	}
	if before == im.header.SizeBytes {
		return im.leadToBitmaps(&ext)
	}
	for k := range list {
		if err := im.resizeBitmap(&list[k], min(before, im.header.SizeBytes)); err != nil {
			return err
		}
	}
	if err := im.writeBitmaps(list); err != nil {
		return err
	}
	if err := im.release(ext.DirectoryOffset, im.g.Clusters(int64(ext.DirectoryBytes))); err != nil {
		return err
	}
	return im.flush()
}

// mayFollow says which bitmap cannot have another length.
func (im *Image) mayFollow(list []format.Bitmap, sizeBytes uint64) error {
	for k := range list {
		entries := im.bitmapTableEntries(sizeBytes, uint(list[k].GranularityBits))
		switch {
		case list[k].Flags&format.BitmapInUse != 0:
			return invalid("Bitmap '%s' is inconsistent and cannot be used", list[k].Name)
		case entries > format.BitmapTableEntriesMax || entries<<im.g.ClusterBits > format.BitmapBytesMax:
			return invalid("Too many bits for a bitmap of this granularity")
		}
	}
	return nil
}

// leadToBitmaps writes a header that leads to a directory of bitmaps, or to none.
func (im *Image) leadToBitmaps(ext *format.BitmapsExtension) error {
	im.header.Extensions = slices.Clone(im.header.Extensions)
	im.header.Autoclear &^= format.AutoclearBitmaps
	if ext == nil {
		im.header.SetExtension(format.ExtensionBitmaps, nil)
	} else {
		im.header.SetExtension(format.ExtensionBitmaps, ext.Marshal())
		im.header.Autoclear |= format.AutoclearBitmaps
	}
	return im.writeHeader()
}

// resizeBitmap gives a bitmap a table of the length that the disk needs now. Nothing is marked from validBytes of the disk on.
func (im *Image) resizeBitmap(b *format.Bitmap, validBytes uint64) error {
	old, err := im.bitmapEntries(b)
	if err != nil {
		return err
	}
	table := make([]byte, im.bitmapTableEntries(im.header.SizeBytes, uint(b.GranularityBits))*format.EntryBytes)
	copied := copy(table, old)
	bits := validBytes >> b.GranularityBits
	if validBytes&(1<<b.GranularityBits-1) != 0 {
		bits++
	}
	perCluster := uint64(im.g.ClusterBytes()) * 8
	if within := bits % perCluster; within != 0 {
		if err := im.cutBits(table, int(bits/perCluster), within); err != nil {
			return err
		}
	}
	clusters := im.g.Clusters(int64(len(table)))
	first, err := im.allocate(clusters)
	if err != nil {
		return err
	}
	if _, err := im.file.WriteAt(padded(table, clusters<<im.g.ClusterBits), int64(im.g.Cluster(first))); err != nil {
		return err
	}
	if err := im.releaseBits(old[copied:]); err != nil {
		return err
	}
	if err := im.release(b.TableOffset, im.g.Clusters(int64(len(old)))); err != nil {
		return err
	}
	b.TableOffset, b.TableEntries = im.g.Cluster(first), uint32(len(table)/format.EntryBytes)
	return nil
}

// cutBits clears what is behind the first so many bits of one entry of a bitmap's table. Nobody else leads to the cluster of bits.
func (im *Image) cutBits(table []byte, index int, bits uint64) error {
	e := format.BitmapEntry(format.Entry(table, index))
	switch {
	case !e.Valid(im.g):
		return &Damaged{What: "bitmap table entry", Offset: e.Offset()}
	case e.Offset() == 0 && !e.AllOnes():
		return nil
	}
	data := make([]byte, im.g.ClusterBytes())
	at := e.Offset()
	if at == 0 {
		first, err := im.allocate(1)
		if err != nil {
			return err
		}
		at = im.g.Cluster(first)
		for n := range data {
			data[n] = 0xff
		}
	} else if err := readAt(im.file, data, int64(at)); err != nil {
		return err
	}
	if rest := bits % 8; rest != 0 {
		data[bits/8] &= 1<<rest - 1
	}
	clear(data[(bits+7)/8:])
	if _, err := im.file.WriteAt(data, int64(at)); err != nil {
		return err
	}
	format.SetEntry(table, index, uint64(format.NewBitmapEntry(at, false)))
	return nil
}
