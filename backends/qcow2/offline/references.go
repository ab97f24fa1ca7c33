package offline

import (
	"nbd-dataplane/backends/qcow2/format"
)

// retain changes the counts of all that an L1 table refers to by delta, which is 1 or -1. A change that fails half way is taken back.
func (im *Image) retain(l1 []byte, delta int64) error {
	w := &retaining{Image: im, delta: delta, left: -1}
	err := w.all(l1)
	if err == nil {
		return nil
	}
	undo := &retaining{Image: im, delta: -delta, left: w.done}
	_ = undo.all(l1) // it ends when nothing is left to undo
	return err
}

// retaining is a walk that changes counts.
type retaining struct {
	*Image
	delta      int64
	done, left int64 // changes; left is negative when all are to be made
}

func (w *retaining) all(l1 []byte) error {
	table := make([]byte, w.g.ClusterBytes())
	w.expect(w.l2Tables(l1))
	for i := range len(l1) / format.EntryBytes {
		e := format.L1Entry(format.Entry(l1, i))
		if e.Offset() == 0 {
			continue
		}
		if w.g.InCluster(e.Offset()) != 0 {
			return &Damaged{What: "L2 table offset", Offset: e.Offset()}
		}
		if err := readAt(w.file, table, int64(e.Offset())); err != nil {
			return err
		}
		for n := range w.g.L2Entries() {
			if err := w.entry(w.g.L2Entry(table, n)); err != nil {
				return err
			}
		}
		if err := w.change(e.Offset(), w.g.ClusterBytes()); err != nil {
			return err
		}
	}
	return nil
}

func (w *retaining) entry(e format.L2Entry) error {
	switch w.g.Kind(e, w.header.Has(format.IncompatibleDataFile)) {
	case format.Compressed:
		at, lengthBytes := w.g.CompressedRange(e)
		return w.change(at, lengthBytes)
	case format.Normal, format.ZeroAlloc:
		if w.g.InCluster(e.Offset()) != 0 {
			return &Damaged{What: "Cluster allocation offset", Offset: e.Offset()}
		}
		if !w.header.Has(format.IncompatibleDataFile) {
			return w.change(e.Offset(), w.g.ClusterBytes())
		}
	}
	return nil
}

func (w *retaining) change(at format.Host, lengthBytes int64) error {
	for n := w.g.Index(at); n <= w.g.Index(at+format.Host(lengthBytes-1)); n++ {
		if w.left == 0 {
			return errUndone
		}
		if err := w.addRefcount(n, w.delta); err != nil {
			return err
		}
		w.done++
		w.left--
	}
	return nil
}

// settleCopied makes the COPIED flags of the active tables agree with the counts.
func (im *Image) settleCopied() error {
	table := make([]byte, im.g.ClusterBytes())
	im.expect(im.l2Tables(im.l1))
	for i := range len(im.l1) / format.EntryBytes {
		e := format.L1Entry(format.Entry(im.l1, i))
		if e.Offset() == 0 {
			continue
		}
		if err := im.settleTable(e.Offset(), table); err != nil {
			return err
		}
		n, err := im.refcount(im.g.Index(e.Offset()))
		if err != nil {
			return err
		}
		if (n == 1) != e.Copied() {
			if err := im.setL1(i, flip(uint64(e))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (im *Image) settleTable(at format.Host, table []byte) error {
	if err := readAt(im.file, table, int64(at)); err != nil {
		return err
	}
	from, to := len(table), 0 // what has changed: the rest may be a hole, for which there is no room any more
	for i := range im.g.L2Entries() {
		e := im.g.L2Entry(table, i)
		if kind := im.g.Kind(e, im.header.Has(format.IncompatibleDataFile)); kind != format.Normal && kind != format.ZeroAlloc {
			continue
		}
		n := uint64(1)
		if !im.header.Has(format.IncompatibleDataFile) {
			var err error
			if n, err = im.refcount(im.g.Index(e.Offset())); err != nil {
				return err
			}
		}
		if (n == 1) != e.Copied() {
			e.Descriptor = flip(e.Descriptor)
			im.g.SetL2Entry(table, i, e)
			n := i * im.g.L2EntryBytes() &^ (format.SectorBytes - 1)
			from, to = min(from, n), n+format.SectorBytes
		}
	}
	if to == 0 {
		return nil
	}
	_, err := im.file.WriteAt(table[from:to], int64(at)+int64(from))
	return err
}
