package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// writeHeader writes the sectors of the first cluster that have changed, and syncs. A change of the fixed fields is one sector, which the disk
// writes as a whole or not at all.
func (i *Image) writeHeader(t *blockcore.Task) error {
	p, err := i.header.Marshal()
	if err != nil {
		return err
	}
	next := make([]byte, len(i.first))
	copy(next, p)
	from, to := changedSectors(i.first, next)
	if i.unsure {
		from, to = 0, len(next)
	}
	if from == to {
		return nil
	}
	buf := t.Buffers().Get(to - from)
	defer t.Buffers().Put(buf)
	copy(buf, next[from:to])
	err = i.file.Load().Write(t, buf, int64(from), 0)
	if err == nil {
		err = i.file.Load().Flush(t)
	}
	if err == nil {
		i.first = next
	}
	i.unsure = err != nil
	return err
}

// changedSectors returns the range of sectors in which two first clusters differ.
func changedSectors(a, b []byte) (from, to int) {
	to = len(a)
	for from < to && string(a[from:from+format.SectorBytes]) == string(b[from:from+format.SectorBytes]) {
		from += format.SectorBytes
	}
	for to > from && string(a[to-format.SectorBytes:to]) == string(b[to-format.SectorBytes:to]) {
		to -= format.SectorBytes
	}
	return from, to
}

// changeHeader changes the header here and on disk, one change after the other. When it fails the header is as it was here; what is on disk is put right
// before anything else is written.
func (i *Image) changeHeader(t *blockcore.Task, change func(h *format.Header)) error {
	i.headers.enter(t)
	defer i.headers.leave()
	before := *i.header
	change(i.header)
	if err := i.writeHeader(t); err != nil {
		*i.header = before
		i.unmarked = true
		return err
	}
	return nil
}

// confirmHeader writes the header again if the last time has failed: which one is on disk is not known then.
func (i *Image) confirmHeader(t *blockcore.Task) error {
	if !i.unsure {
		return nil
	}
	return i.changeHeader(t, func(*format.Header) {})
}

// soilImage sets the dirty bit before refcounts are left behind.
func (i *Image) soilImage(t *blockcore.Task) error {
	if !i.lazy || i.header.Has(format.IncompatibleDirty) && !i.headers.busy {
		return nil
	}
	return i.changeHeader(t, func(h *format.Header) { h.Incompatible |= format.IncompatibleDirty })
}

// cleanImage takes the dirty bit away when all refcounts are on disk.
func (i *Image) cleanImage(t *blockcore.Task) error {
	if !i.header.Has(format.IncompatibleDirty) {
		return nil
	}
	if err := i.sync(t); err != nil { // they may have been written by a commit that failed then
		return err
	}
	return i.changeHeader(t, func(h *format.Header) { h.Incompatible &^= format.IncompatibleDirty })
}
