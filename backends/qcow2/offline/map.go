package offline

import (
	"nbd-dataplane/backends/qcow2/format"
)

// Extent is a part of the disk that an image has in one way.
type Extent struct {
	At, Length int64
	Kind       format.Kind
	// Offset is where it is in the file, or in the external data file; negative = in no one place.
	Offset int64
}

// Walk tells where the parts of a disk are. It keeps the L2 table that it read last, as what is below an image is asked about in small parts; the image does
// not change meanwhile.
type Walk struct {
	image *Image
	table []byte
	at    format.Host // of the table; 0 = none
	index int         // of it in the L1 table
	told  int         // the last that it was said would be read
}

// NewWalk returns a Walk over an image.
func (im *Image) NewWalk() *Walk { return &Walk{image: im, table: make([]byte, im.g.ClusterBytes())} }

// Extents calls visit for the parts of the disk between two offsets, in order; neighbours of one kind may be told as several. An error that
// visit returns ends the walk.
func (im *Image) Extents(from, to int64, visit func(Extent) error) error {
	return im.NewWalk().Extents(from, to, visit)
}

// Extents is that of the image.
func (w *Walk) Extents(from, to int64, visit func(Extent) error) error {
	to = min(to, int64(w.image.header.SizeBytes))
	for at := from; at < to; {
		e, err := w.extent(at, to)
		if err == nil {
			err = visit(e)
		}
		if err != nil {
			return err
		}
		at += e.Length
	}
	return nil
}

// extent is what begins at an offset; an L2 table that is not there is one.
func (w *Walk) extent(at, to int64) (Extent, error) {
	im := w.image
	e := Extent{At: at, Kind: format.Unallocated, Offset: -1}
	index := im.g.L1Index(format.Guest(at))
	l1 := format.L1Entry(format.Entry(im.l1, index))
	if l1.Offset() == 0 {
		span := int64(im.g.L2Entries()) << im.g.ClusterBits
		e.Length = min(to, (at/span+1)*span) - at
		return e, nil
	}
	if im.g.InCluster(l1.Offset()) != 0 {
		return e, &Damaged{What: "L2 table offset", Offset: l1.Offset()}
	}
	if err := w.seeTable(l1.Offset(), index); err != nil {
		return e, err
	}
	return w.subcluster(e, to)
}

// subcluster is one subcluster, or cluster where there are none, from e.At on.
func (w *Walk) subcluster(e Extent, to int64) (Extent, error) {
	im := w.image
	entry := im.g.L2Entry(w.table, im.g.L2Index(format.Guest(e.At)))
	inCluster := im.g.GuestInCluster(format.Guest(e.At))
	size := im.g.SubclusterBytes()
	e.Kind = im.g.SubKind(entry, int(inCluster/size), im.header.Has(format.IncompatibleDataFile))
	if e.Kind == format.Compressed {
		size = im.g.ClusterBytes()
	}
	e.Length = min(to, e.At-inCluster%size+size) - e.At
	switch e.Kind {
	case format.Normal, format.ZeroAlloc, format.UnallocatedAlloc:
		if im.g.InCluster(entry.Offset()) != 0 {
			return e, &Damaged{What: "Cluster allocation offset", Offset: entry.Offset()}
		}
		e.Offset = int64(entry.Offset()) + inCluster
	case format.Invalid:
		return e, &Damaged{What: "L2 entry", Offset: w.at}
	}
	return e, nil
}

// seeTable has an L2 table be the one that is kept.
func (w *Walk) seeTable(at format.Host, index int) error {
	if w.at == at {
		return nil
	}
	if w.at == 0 || index < w.index || index > w.told { // it was not said that this one would be next
		w.told = index
		w.image.expect(w.image.l2TablesFrom(w.image.l1, index, &w.told))
	}
	w.at, w.index = 0, index
	if err := readAt(w.image.file, w.table, int64(at)); err != nil {
		return err
	}
	w.at = at
	return nil
}
