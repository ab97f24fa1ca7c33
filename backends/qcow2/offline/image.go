package offline

import (
	"fmt"
	"io"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// Image is an opened image. It is used by one goroutine.
type Image struct {
	file      File
	header    *format.Header
	g         format.Geometry
	fileBytes int64 // the length of the file

	l1       []byte // the active L1 table
	refTable []byte // the refcount table

	snapshots     []format.Snapshot
	snapshotBytes int64 // the length of their table

	block refBlock // the refcount block that was used last
	// blocks are others, by where they are, as they are there. None is the one in block.
	blocks map[format.Host][]byte
	free   int64 // no cluster before this one is free
	end    int64 // one more than the last cluster that was allocated
	// refTableMoves is set while the refcount table in memory is ahead of the one on disk, whose place it will take.
	refTableMoves bool

	misplaced int64 // see Misplaced
}

// Open reads the header and the tables that everything hangs on. With format.ForCheck it takes what a check can report.
func Open(f File, mode format.Mode) (*Image, error) {
	im := &Image{file: f}
	var err error
	if im.fileBytes, err = f.Size(); err != nil {
		return nil, err
	}
	if im.header, err = readHeader(f, mode); err != nil {
		return nil, err
	}
	im.g = im.header.Geometry()
	if im.refTable, err = im.readTable(im.header.RefTableOffset, int64(im.header.RefTableClusters)<<im.g.ClusterBits); err != nil {
		return nil, fmt.Errorf("Could not initialize refcount handling: %w", err)
	}
	if im.l1, err = im.readTable(im.header.L1Offset, int64(im.header.L1Entries)*format.EntryBytes); err != nil {
		return nil, fmt.Errorf("Could not read L1 table: %w", err)
	}
	if mode == format.ForUse {
		err = im.readSnapshots()
	}
	return im, err
}

// ReadHeader reads and judges an image's header.
func ReadHeader(f io.ReaderAt) (*format.Header, error) { return readHeader(f, format.ForUse) }

func readHeader(f io.ReaderAt, mode format.Mode) (*format.Header, error) {
	prefix := make([]byte, format.PrefixBytes)
	if err := readAt(f, prefix, 0); err != nil {
		return nil, fmt.Errorf("Could not read qcow2 header: %w", err)
	}
	clusterBytes, err := format.Prefix(prefix)
	if err != nil {
		return nil, err
	}
	first := make([]byte, clusterBytes)
	if err := readAt(f, first, 0); err != nil {
		return nil, fmt.Errorf("Could not read qcow2 header: %w", err)
	}
	return format.Parse(first, mode)
}

// Header of the image; it is not to be changed.
func (im *Image) Header() *format.Header { return im.header }

// Snapshots of the image, in their order; they are not to be changed.
func (im *Image) Snapshots() []format.Snapshot { return im.snapshots }

// readTable reads a table of a length that was judged already. A table that reaches behind the end of the file is not read: the
// length is what the header says, and the file may be a few bytes.
func (im *Image) readTable(at format.Host, lengthBytes int64) ([]byte, error) {
	if lengthBytes == 0 {
		return nil, nil
	}
	if int64(at) > im.fileBytes || lengthBytes > im.fileBytes-int64(at)+im.g.ClusterBytes() {
		return nil, syscall.EINVAL
	}
	table := make([]byte, lengthBytes)
	return table, readAt(im.file, table, int64(at))
}
