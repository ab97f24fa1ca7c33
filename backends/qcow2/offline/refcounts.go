package offline

import (
	"iter"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// refBlock is a refcount block in memory.
type refBlock struct {
	index int64 // which one; the zero value has no data
	data  []byte
	// from and to bound the bytes that have changed since the block was written, in whole sectors. The rest may be a hole, for which there is no
	// room any more.
	from, to int
}

// refTableEntry is the entry of a block; 0 behind the end of the table.
func (im *Image) refTableEntry(index int64) format.RefTableEntry {
	if index >= int64(len(im.refTable)/format.EntryBytes) {
		return 0
	}
	return format.RefTableEntry(format.Entry(im.refTable, int(index)))
}

// loadBlock makes im.block that of an index. It is false if there is none, and all its counts are zero.
func (im *Image) loadBlock(index int64) (bool, error) {
	if im.block.data != nil && im.block.index == index {
		return true, nil
	}
	at := im.refTableEntry(index).Offset()
	if at == 0 {
		return false, nil
	}
	switch {
	case im.g.InCluster(at) != 0:
		return false, &UnalignedBlock{Offset: at, Index: index}
	case at < 0:
		return false, syscall.EIO
	}
	if err := im.writeBlock(); err != nil {
		return false, err
	}
	im.keepBlock()
	data := im.blocks[at]
	if data == nil {
		data = make([]byte, im.g.ClusterBytes())
		if err := readAt(im.file, data, int64(at)); err != nil {
			return false, err
		}
	}
	delete(im.blocks, at)
	im.block = refBlock{index: index, data: data}
	return true, nil
}

// blocksBytesMax bounds the refcount blocks that are kept: with clusters of 64 KiB they are those of a file of a terabyte.
const blocksBytesMax = 32 << 20

// keepBlock puts the block that was used last, which is as it is on disk, with the others. A walk along guest addresses comes back to each of them.
func (im *Image) keepBlock() {
	at := im.refTableEntry(im.block.index).Offset()
	if im.block.data != nil && at != 0 {
		if im.blocks == nil {
			im.blocks = map[format.Host][]byte{}
		}
		for old := range im.blocks {
			if int64(len(im.blocks))<<im.g.ClusterBits < blocksBytesMax {
				break
			}
			delete(im.blocks, old)
		}
		im.blocks[at] = im.block.data
	}
	im.block = refBlock{}
}

// forgetBlocks is for what changes blocks and their table in another way.
func (im *Image) forgetBlocks() { im.block, im.blocks = refBlock{}, nil }

// refBlocks are the places of refcount blocks, but of those that are in memory.
func (im *Image) refBlocks(indices iter.Seq[int64]) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for index := range indices {
			at := im.refTableEntry(index).Offset()
			if at <= 0 || im.g.InCluster(at) != 0 || int64(at) >= im.fileBytes || im.blocks[at] != nil {
				continue
			}
			if !yield(Part{int64(at), im.g.ClusterBytes()}) {
				return
			}
		}
	}
}

// l2Tables are the places of the tables that an L1 table refers to.
func (im *Image) l2Tables(l1 []byte) iter.Seq[Part] { return im.l2TablesFrom(l1, 0, new(int)) }

// l2TablesFrom begins with an entry, and notes in told how far it has got.
func (im *Image) l2TablesFrom(l1 []byte, first int, told *int) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		for i := first; i < len(l1)/format.EntryBytes; i++ {
			*told = i
			at := format.L1Entry(format.Entry(l1, i)).Offset()
			if at <= 0 || im.g.InCluster(at) != 0 || int64(at) >= im.fileBytes {
				continue
			}
			if !yield(Part{int64(at), im.g.ClusterBytes()}) {
				return
			}
		}
	}
}

// writeBlock writes what was changed in the block in memory.
func (im *Image) writeBlock() error {
	b := &im.block
	if b.from == b.to {
		return nil
	}
	at := int64(im.refTableEntry(b.index).Offset()) + int64(b.from)
	if _, err := im.file.WriteAt(b.data[b.from:b.to], at); err != nil {
		return err
	}
	b.from, b.to = 0, 0
	return nil
}

// soil notes that a count has changed.
func (b *refBlock) soil(entry, bits int64) {
	from := int(entry*bits/8) &^ (format.SectorBytes - 1)
	if b.from == b.to {
		b.from, b.to = from, from+format.SectorBytes
		return
	}
	b.from, b.to = min(b.from, from), max(b.to, from+format.SectorBytes)
}

// refcount is the count that the image has of a cluster.
func (im *Image) refcount(cluster int64) (uint64, error) {
	there, err := im.loadBlock(cluster >> im.g.RefBlockBits())
	if err != nil || !there {
		return 0, err
	}
	return im.g.Refcount(im.block.data, cluster&(im.g.RefBlockEntries()-1)), nil
}

// UsesMoreThan reports whether more clusters of the file are in use than that, with something to spare: a ninth, and two at least. Of a file that takes less
// space than that, holes are a part of what the image has: metadata was allocated ahead, or what was discarded.
func (im *Image) UsesMoreThan(clusters int64) (bool, error) {
	enough := max(clusters*10/9, clusters+2)
	used := int64(0)
	im.expect(im.refBlocks(func(yield func(int64) bool) {
		for index := range im.g.Clusters(im.fileBytes)>>im.g.RefBlockBits() + 1 {
			if !yield(index) {
				return
			}
		}
	}))
	for c, end := int64(0), im.g.Clusters(im.fileBytes); c < end && used < enough; {
		index := c >> im.g.RefBlockBits()
		there, err := im.loadBlock(index)
		if err != nil {
			return false, err
		}
		next := min((index+1)<<im.g.RefBlockBits(), end)
		for ; there && c < next && used < enough; c++ {
			if im.g.Refcount(im.block.data, c&(im.g.RefBlockEntries()-1)) > 0 {
				used++
			}
		}
		c = max(c, next)
	}
	return used >= enough, nil
}

// setRefcount changes a count where there is a block for it.
func (im *Image) setRefcount(cluster int64, n uint64) error {
	there, err := im.loadBlock(cluster >> im.g.RefBlockBits())
	switch {
	case err != nil:
		return err
	case !there:
		return syscall.EINVAL
	}
	entry := cluster & (im.g.RefBlockEntries() - 1)
	im.g.SetRefcount(im.block.data, entry, n)
	im.block.soil(entry, im.g.ClusterBytes()*8/im.g.RefBlockEntries())
	return nil
}

// UnalignedBlock is a refcount block that cannot be where its table says.
type UnalignedBlock struct {
	Offset format.Host
	Index  int64
}

func (e *UnalignedBlock) Error() string { return "Input/output error" }

// Unwrap makes it an I/O error, as it is to QEMU.
func (e *UnalignedBlock) Unwrap() error { return syscall.EIO }
