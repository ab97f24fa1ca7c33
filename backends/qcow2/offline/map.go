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

// extents reads L2 tables, and keeps the last one.
type extents struct {
	*Image
	table []byte
	at    format.Host // of the table; 0 = none
}

// Extents calls visit for the parts of the disk between two offsets, in order; neighbours of one kind may be told as several. An error that
// visit returns ends the walk.
func (im *Image) Extents(from, to int64, visit func(Extent) error) error {
	w := &extents{Image: im, table: make([]byte, im.g.ClusterBytes())}
	for at := from; at < min(to, int64(im.header.SizeBytes)); {
		e, err := w.extent(at, min(to, int64(im.header.SizeBytes)))
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
func (w *extents) extent(at, to int64) (Extent, error) {
	e := Extent{At: at, Kind: format.Unallocated, Offset: -1}
	l1 := format.L1Entry(format.Entry(w.l1, w.g.L1Index(format.Guest(at))))
	if l1.Offset() == 0 {
		span := int64(w.g.L2Entries()) << w.g.ClusterBits
		e.Length = min(to, (at/span+1)*span) - at
		return e, nil
	}
	if w.g.InCluster(l1.Offset()) != 0 {
		return e, &Damaged{What: "L2 table offset", Offset: l1.Offset()}
	}
	if w.at != l1.Offset() {
		w.at = 0
		if err := readAt(w.file, w.table, int64(l1.Offset())); err != nil {
			return e, err
		}
		w.at = l1.Offset()
	}
	return w.subcluster(e, to)
}

// subcluster is one subcluster, or cluster where there are none, from e.At on.
func (w *extents) subcluster(e Extent, to int64) (Extent, error) {
	entry := w.g.L2Entry(w.table, w.g.L2Index(format.Guest(e.At)))
	inCluster := w.g.GuestInCluster(format.Guest(e.At))
	size := w.g.SubclusterBytes()
	e.Kind = w.g.SubKind(entry, int(inCluster/size), w.header.Has(format.IncompatibleDataFile))
	if e.Kind == format.Compressed {
		size = w.g.ClusterBytes()
	}
	e.Length = min(to, e.At-inCluster%size+size) - e.At
	switch e.Kind {
	case format.Normal, format.ZeroAlloc, format.UnallocatedAlloc:
		if w.g.InCluster(entry.Offset()) != 0 {
			return e, &Damaged{What: "Cluster allocation offset", Offset: entry.Offset()}
		}
		e.Offset = int64(entry.Offset()) + inCluster
	case format.Invalid:
		return e, &Damaged{What: "L2 entry", Offset: w.at}
	}
	return e, nil
}
