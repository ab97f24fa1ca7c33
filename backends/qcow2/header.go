package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// writeHeader writes the sectors of the first cluster that have changed, and syncs. The disk writes a sector as a whole or not at all. Where the header
// as it is on disk, or as it is to be, needs no more than the first one, that one makes the change: the others are written before it, or after.
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
	steps := [][2]int{{from, to}}
	if to > format.SectorBytes && from == 0 {
		first, rest := [2]int{0, format.SectorBytes}, [2]int{format.SectorBytes, to}
		switch {
		case len(p) <= format.SectorBytes:
			steps = [][2]int{first, rest}
		case i.firstBytes <= format.SectorBytes:
			steps = [][2]int{rest, first}
		}
	}
	for _, s := range steps {
		if s[0] == s[1] {
			continue
		}
		if err := i.writeFirst(t, next[s[0]:s[1]], int64(s[0])); err != nil {
			i.unsure, i.firstBytes = true, max(i.firstBytes, len(p))
			return err
		}
	}
	i.unsure, i.first, i.firstBytes = false, next, len(p)
	return nil
}

// writeFirst writes a part of the first cluster.
func (i *Image) writeFirst(t *blockcore.Task, p []byte, off int64) error {
	buf := t.Buffers().Get(len(p))
	defer t.Buffers().Put(buf)
	copy(buf, p)
	if err := i.file.Load().Write(t, buf, off, 0); err != nil {
		return err
	}
	return i.file.Load().Flush(t)
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

// cleanImage takes the dirty bit away when all refcounts are on disk, and entries agree with them.
func (i *Image) cleanImage(t *blockcore.Task) error {
	if !i.header.Has(format.IncompatibleDirty) || i.modest {
		return nil
	}
	if err := i.sync(t); err != nil { // they may have been written by a commit that failed then
		return err
	}
	return i.changeHeader(t, func(h *format.Header) { h.Incompatible &^= format.IncompatibleDirty })
}
