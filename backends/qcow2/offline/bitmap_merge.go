package offline

import (
	"math/bits"

	"nbd-dataplane/backends/qcow2/format"
)

// MergeBitmap marks in a bitmap what is marked in another one, which may be of another image and of another granularity.
func (im *Image) MergeBitmap(name string, from *Image, source string) error {
	list, i, err := im.bitmap(name, true)
	if err != nil {
		return err
	}
	sources, k, err := from.bitmap(source, true)
	if err != nil {
		return err
	}
	if im.header.SizeBytes != from.header.SizeBytes {
		return invalid("Bitmaps are of different sizes (destination size is %d, source size is %d) and can't be merged", im.header.SizeBytes, from.header.SizeBytes)
	}
	m := &merging{Image: im, target: &list[i], data: make([]byte, im.g.ClusterBytes()), at: -1}
	if m.table, err = im.bitmapEntries(m.target); err != nil {
		return err
	}
	if err := from.marked(&sources[k], m.mark); err != nil {
		return err
	}
	return m.end()
}

// marked calls visit for runs of the disk, in bytes and in order, that a bitmap marks.
func (im *Image) marked(b *format.Bitmap, visit func(from, to uint64) error) error {
	table, err := im.bitmapEntries(b)
	if err != nil {
		return err
	}
	data := make([]byte, im.g.ClusterBytes())
	span := uint64(len(data)) * 8 << b.GranularityBits
	for i := range len(table) / format.EntryBytes {
		e := format.BitmapEntry(format.Entry(table, i))
		from := uint64(i) * span
		switch {
		case !e.Valid(im.g):
			return &Damaged{What: "bitmap table entry", Offset: e.Offset()}
		case e.Offset() == 0 && e.AllOnes():
			err = visit(from, min(from+span, im.header.SizeBytes))
		case e.Offset() != 0:
			if err = readAt(im.file, data, int64(e.Offset())); err == nil {
				err = im.markedIn(data, from, uint(b.GranularityBits), visit)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// markedIn is marked for one cluster of bits, which are little endian.
func (im *Image) markedIn(data []byte, from uint64, granularityBits uint, visit func(from, to uint64) error) error {
	for n, b := range data {
		for b != 0 {
			bit := bits.TrailingZeros8(b)
			run := bits.TrailingZeros8(^(b >> bit))
			first := from + (uint64(n)*8+uint64(bit))<<granularityBits
			if first >= im.header.SizeBytes {
				return nil
			}
			if err := visit(first, min(first+uint64(run)<<granularityBits, im.header.SizeBytes)); err != nil {
				return err
			}
			b &^= byte((1<<run - 1) << bit)
		}
	}
	return nil
}

// merging changes one cluster of bits after the other. Clusters are new: the old ones serve until the table is written.
type merging struct {
	*Image
	target *format.Bitmap
	table  []byte
	data   []byte
	at     int64 // which cluster of bits is in data; negative = none
	old    []format.Host
}

// mark marks a run of the disk, in bytes.
func (m *merging) mark(from, to uint64) error {
	g := uint(m.target.GranularityBits)
	for bit := from >> g; bit<<g < to; bit++ {
		index := int64(bit >> 3 >> m.g.ClusterBits)
		if index != m.at {
			if err := m.load(index); err != nil {
				return err
			}
		}
		m.data[bit>>3&uint64(len(m.data)-1)] |= 1 << (bit & 7)
	}
	return nil
}

func (m *merging) load(index int64) error {
	if err := m.store(); err != nil {
		return err
	}
	if index >= int64(len(m.table)/format.EntryBytes) {
		return &Damaged{What: "bitmap table", Offset: m.target.TableOffset}
	}
	e := format.BitmapEntry(format.Entry(m.table, int(index)))
	fill := byte(0)
	if e.AllOnes() {
		fill = 0xff
	}
	for i := range m.data {
		m.data[i] = fill
	}
	m.at = index
	switch {
	case !e.Valid(m.g):
		return &Damaged{What: "bitmap table entry", Offset: e.Offset()}
	case e.Offset() == 0:
		return nil
	}
	m.old = append(m.old, e.Offset())
	return readAt(m.file, m.data, int64(e.Offset()))
}

func (m *merging) store() error {
	if m.at < 0 {
		return nil
	}
	first, err := m.allocate(1)
	if err != nil {
		return err
	}
	format.SetEntry(m.table, int(m.at), uint64(format.NewBitmapEntry(m.g.Cluster(first), false)))
	m.at = -1
	_, err = m.file.WriteAt(m.data, int64(m.g.Cluster(first)))
	return err
}

// end writes the table, which is the moment of the change but for its length.
func (m *merging) end() error {
	if err := m.store(); err != nil {
		return err
	}
	if err := m.flush(); err != nil {
		return err
	}
	if _, err := m.file.WriteAt(m.table, int64(m.target.TableOffset)); err != nil {
		return err
	}
	if err := m.file.Sync(); err != nil {
		return err
	}
	for _, at := range m.old {
		if err := m.release(at, 1); err != nil {
			return err
		}
	}
	return m.flush()
}
