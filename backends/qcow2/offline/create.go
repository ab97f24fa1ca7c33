package offline

import (
	"errors"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// Allocator is a File that can set space apart.
type Allocator interface {
	// Allocate sets space apart that reads as zeroes, or as it did.
	Allocate(at, lengthBytes int64) error
}

// Create makes an image in an empty file. data is the external data file, nil if there is to be none. What it has stays: it gets the size of the disk, but
// with preallocation it is never cut off, as with QEMU. progress may be nil. What is in the file after an error is no image, or one that is too small.
func Create(f, data File, o CreateOptions, progress func(done, total int64) error) error {
	if err := o.Check(); err != nil {
		return err
	}
	o = o.WithDefaults()
	if (data != nil) != (o.DataFile != "") {
		return syscall.EINVAL
	}
	h := o.header()
	h.Backing = o.Backing
	if o.BackingFormat != "" {
		h.SetExtension(format.ExtensionBackingFormat, []byte(o.BackingFormat))
	}
	if o.DataFile != "" {
		h.SetExtension(format.ExtensionDataFile, []byte(o.DataFile))
	}
	if h.Version >= 3 {
		h.SetExtension(format.ExtensionFeatures, format.MarshalFeatures(format.Features()))
	}
	sizeBytes := h.SizeBytes
	h.SizeBytes = 0
	im, err := createEmpty(f, h)
	if err != nil {
		return err
	}
	if o.DataFileRaw {
		o.Preallocation = max(o.Preallocation, PreallocationMetadata) // what is in a raw file needs no entry to be there
	}
	to := growth{sizeBytes: sizeBytes, how: o.Preallocation, data: data, progress: progress}
	if data != nil {
		if err := to.fitData(); err != nil {
			return err
		}
	}
	return im.grow(to)
}

// fitData gives the external data file of a new image its length.
func (to *growth) fitData() (err error) {
	if to.dataHas, err = to.data.Size(); err != nil {
		return err
	}
	if to.how != PreallocationOff && to.dataHas >= int64(to.sizeBytes) {
		return nil
	}
	return to.data.Truncate(int64(to.sizeBytes))
}

// createEmpty makes an image of no size: a header, a refcount table, and a block that counts these three.
//
//	0         1                2
//	| header  | refcount table | refcount block |
func createEmpty(f File, h *format.Header) (*Image, error) {
	g := h.Geometry()
	const clusters = 3
	h.RefTableOffset, h.RefTableClusters = g.Cluster(1), 1
	table, block := make([]byte, g.ClusterBytes()), make([]byte, g.ClusterBytes())
	format.SetEntry(table, 0, uint64(g.Cluster(2)))
	for n := range int64(clusters) {
		g.SetRefcount(block, n, 1)
	}
	// The size of the file is one of whole clusters from the beginning.
	if err := f.Truncate(clusters << g.ClusterBits); err != nil {
		return nil, err
	}
	for n, p := range [][]byte{table, block} {
		if _, err := f.WriteAt(p, int64(n+1)<<g.ClusterBits); err != nil {
			return nil, err
		}
	}
	im := &Image{file: f, header: h, g: g, refTable: table, fileBytes: clusters << g.ClusterBits}
	return im, im.writeHeader()
}

// writeHeader writes the first cluster anew, which must be on disk before anything that depends on it. The table of feature names is left
// out where there is no room for it.
func (im *Image) writeHeader() error {
	p, err := im.header.Marshal()
	if errors.Is(err, syscall.ENOSPC) && im.header.Extension(format.ExtensionFeatures) != nil {
		im.header.SetExtension(format.ExtensionFeatures, nil)
		p, err = im.header.Marshal()
	}
	if err != nil {
		return err
	}
	first := make([]byte, im.g.ClusterBytes())
	copy(first, p)
	if _, err := im.file.WriteAt(first, 0); err != nil {
		return err
	}
	return im.file.Sync()
}
