package offline

import (
	"encoding/binary"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// growth is how a disk becomes larger.
type growth struct {
	sizeBytes uint64
	how       Preallocation
	data      File  // nil = the image itself
	dataHas   int64 // that much is in the external data file and stays as it is
	progress  func(done, total int64) error
}

// grow makes the disk larger. The new size is written last: a power cut before that leaves an image of the old size that leaks.
func (im *Image) grow(to growth) error {
	old, sizeBytes := im.header.SizeBytes, to.sizeBytes
	if err := im.growL1(im.g.L1EntriesFor(sizeBytes)); err != nil {
		return err
	}
	if to.how != PreallocationOff {
		p := &preallocation{Image: im, growth: to, from: old}
		if err := p.run(); err != nil {
			return err
		}
	}
	if err := im.coverFile(); err != nil {
		return err
	}
	if err := im.flush(); err != nil {
		return err
	}
	return im.setSize(sizeBytes)
}

// setSize writes the size of the disk into the header.
func (im *Image) setSize(sizeBytes uint64) error {
	im.header.SizeBytes = sizeBytes
	if _, err := im.file.WriteAt(binary.BigEndian.AppendUint64(nil, sizeBytes), headerSizeAt); err != nil {
		return err
	}
	return im.file.Sync()
}

const (
	headerSizeAt = 24 // where in the header the size of the disk stands
	headerL1At   = 36 // and number of entries and place of the L1 table
)

// growL1 makes the active L1 table longer, in a new place.
func (im *Image) growL1(entries uint64) error {
	switch {
	case entries > format.L1BytesMax/format.EntryBytes:
		return ErrTooLarge
	case entries <= uint64(im.header.L1Entries):
		return nil
	}
	table := make([]byte, entries*format.EntryBytes)
	copy(table, im.l1)
	return im.moveL1(table)
}

// moveL1 writes a new active L1 table and turns to it.
func (im *Image) moveL1(table []byte) error {
	clusters := im.g.Clusters(int64(len(table)))
	first, err := im.allocate(clusters)
	if err != nil {
		return err
	}
	if _, err := im.file.WriteAt(padded(table, clusters<<im.g.ClusterBits), int64(im.g.Cluster(first))); err != nil {
		return err
	}
	if err := im.flush(); err != nil {
		return err
	}
	place := binary.BigEndian.AppendUint32(nil, uint32(len(table)/format.EntryBytes))
	place = binary.BigEndian.AppendUint64(place, uint64(im.g.Cluster(first)))
	if _, err := im.file.WriteAt(place, headerL1At); err != nil {
		return err
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	oldAt, oldBytes := im.header.L1Offset, int64(len(im.l1))
	im.header.L1Offset, im.header.L1Entries, im.l1 = im.g.Cluster(first), uint32(len(table)/format.EntryBytes), table
	return im.release(oldAt, im.g.Clusters(oldBytes)) // none of a disk without anything, whose table is nowhere
}

func padded(p []byte, lengthBytes int64) []byte {
	whole := make([]byte, lengthBytes)
	copy(whole, p)
	return whole
}

// coverFile makes the file as long as what is allocated at its end, so that the last cluster is a whole one.
func (im *Image) coverFile() error {
	size, err := im.file.Size()
	if err != nil {
		return err
	}
	im.fileBytes = max(size, int64(im.g.Cluster(im.end)))
	if im.fileBytes == size {
		return nil
	}
	return im.file.Truncate(im.fileBytes)
}

// preallocation gives guest clusters their places.
type preallocation struct {
	*Image
	growth
	from uint64 // the old end of the disk, in bytes
}

func (p *preallocation) run() error {
	span := uint64(p.g.L2Entries()) << p.g.ClusterBits
	first := p.from &^ uint64(p.g.ClusterBytes()-1)
	if first != p.from {
		first += uint64(p.g.ClusterBytes()) // the cluster that was cut off by the old end stays as it is
	}
	for at := first; at < p.sizeBytes; {
		end := min(p.sizeBytes, at/span*span+span)
		if err := p.table(format.Guest(at), int64(end-at)); err != nil {
			return err
		}
		at = end
		if err := p.report(at); err != nil {
			return err
		}
	}
	return p.dataSpace()
}

func (p *preallocation) report(at uint64) error {
	if p.progress == nil {
		return nil
	}
	return p.progress(int64(at-p.from), int64(p.sizeBytes-p.from))
}

// table fills one L2 table, or the end of one, for a part of the disk.
func (p *preallocation) table(at format.Guest, lengthBytes int64) error {
	table, where, err := p.l2ToChange(at)
	if err != nil {
		return err
	}
	clusters := p.g.Clusters(lengthBytes)
	place := format.Host(at)
	if p.data == nil {
		first, err := p.allocateAtEnd(clusters)
		if err != nil {
			return err
		}
		place = p.g.Cluster(first)
		if err := p.space(p.file, int64(place), clusters<<p.g.ClusterBits); err != nil {
			return err
		}
	}
	for n := range clusters {
		// Subclusters stay what they are: there is a place, and what is read is still what is below, or the zeroes that hide it.
		index := p.g.L2Index(at) + int(n)
		entry := format.L2Entry{Descriptor: format.FlagCopied | uint64(place), Bits: p.g.L2Entry(table, index).Bits & format.ZeroBits}
		p.g.SetL2Entry(table, index, entry)
		place += format.Host(p.g.ClusterBytes())
	}
	if err := p.flush(); err != nil {
		return err
	}
	return p.writeL2(at, table, where)
}

// allocateAtEnd allocates clusters behind all that the file ever had, which read as zeroes.
func (im *Image) allocateAtEnd(clusters int64) (int64, error) {
	size, err := im.file.Size()
	if err != nil {
		return 0, err
	}
	before := im.free
	im.free = max(before, im.g.Clusters(size), im.end)
	first, err := im.allocate(clusters)
	im.free = before
	return first, err
}

// space sets the space of clusters apart.
func (p *preallocation) space(f File, at, lengthBytes int64) error {
	return Preallocate(f, at, lengthBytes, p.how, nil)
}

// Preallocate sets space of a plain file apart, or writes zeroes there. progress may be nil.
func Preallocate(f File, at, lengthBytes int64, how Preallocation, progress func(done, total int64) error) error {
	if lengthBytes == 0 {
		return nil
	}
	switch how {
	case PreallocationFalloc:
		a, can := f.(Allocator)
		if !can {
			return syscall.ENOTSUP
		}
		return a.Allocate(at, lengthBytes)
	case PreallocationFull:
		return writeZeroes(f, at, lengthBytes, progress)
	}
	return nil
}

// dataSpace sets apart what is new in the external data file.
func (p *preallocation) dataSpace() error {
	from := max(int64(p.from), p.dataHas)
	if p.data == nil || from >= int64(p.sizeBytes) {
		return nil
	}
	return p.space(p.data, from, int64(p.sizeBytes)-from)
}

// zeroesBytes is written at once: as many pieces as a server answers together.
const zeroesBytes = 4 << 20

func writeZeroes(f File, at, lengthBytes int64, progress func(done, total int64) error) error {
	zeroes := make([]byte, min(zeroesBytes, lengthBytes))
	for done := int64(0); done < lengthBytes; {
		n, err := f.WriteAt(zeroes[:min(int64(len(zeroes)), lengthBytes-done)], at+done)
		if err != nil {
			return err
		}
		done += int64(n)
		if progress == nil {
			continue
		}
		if err := progress(done, lengthBytes); err != nil {
			return err
		}
	}
	return nil
}

// l2For is the L2 table of a guest offset, and where it is; a new one is zeroes, counted, and not yet referred to.
func (im *Image) l2For(at format.Guest) (table []byte, where format.Host, err error) {
	table = make([]byte, im.g.ClusterBytes())
	e := format.L1Entry(format.Entry(im.l1, im.g.L1Index(at)))
	if e.Offset() == 0 {
		first, err := im.allocate(1)
		return table, im.g.Cluster(first), err
	}
	return table, e.Offset(), readAt(im.file, table, int64(e.Offset()))
}

// writeL2 writes an L2 table and refers to it.
func (im *Image) writeL2(at format.Guest, table []byte, where format.Host) error {
	if _, err := im.file.WriteAt(table, int64(where)); err != nil {
		return err
	}
	index := im.g.L1Index(at)
	old := format.L1Entry(format.Entry(im.l1, index))
	entry := format.FlagCopied | uint64(where)
	if uint64(old) == entry {
		return nil
	}
	if err := im.file.Sync(); err != nil {
		return err
	}
	if err := im.setL1(index, entry); err != nil || old.Offset() == 0 || old.Offset() == where {
		return err
	}
	return im.addRefcount(im.g.Index(old.Offset()), -1)
}

// setL1 writes an entry of the active L1 table.
func (im *Image) setL1(index int, entry uint64) error {
	format.SetEntry(im.l1, index, entry)
	at := index * format.EntryBytes
	_, err := im.file.WriteAt(im.l1[at:at+format.EntryBytes], int64(im.header.L1Offset)+int64(at))
	return err
}
