package qcow2

import (
	"errors"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
)

// WriteAt stores p at offset off.
func (i *Image) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.unmarked {
		if err := i.mark(t); err != nil {
			return err
		}
	}
	fua := flags & blockcore.WriteFUA
	if i.through {
		fua = blockcore.WriteFUA
	}
	if i.options.DetectZeroes != DetectOff && membuf.AllZero(p) {
		err := i.WriteZeroes(t, blockcore.Range{Offset: off, Length: int64(len(p))}, i.detected(fua))
		if !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	write := i.writeRange
	if flags&blockcore.WriteCompressed != 0 {
		write = i.writeCompressed
	}
	if err := write(t, p, format.Guest(off), fua); err != nil {
		return err
	}
	// What was written in place is durable; what it was reached by is, if there is nothing to commit, and it was read from a disk and no cache.
	if fua == 0 || i.clean() && i.synced == i.file.Load().Node() {
		return nil
	}
	return i.Flush(t)
}

// detected are the flags of a write that turned out to be zeroes.
func (i *Image) detected(fua blockcore.WriteFlags) blockcore.ZeroFlags {
	flags := blockcore.ZeroNoFallback
	if fua != 0 {
		flags |= blockcore.ZeroFUA
	}
	if i.options.DetectZeroes == DetectUnmap {
		flags |= blockcore.ZeroMayUnmap
	}
	return flags
}

// writeRange writes in place what is mapped, and allocates the rest.
func (i *Image) writeRange(t *blockcore.Task, p []byte, off format.Guest, flags blockcore.WriteFlags) error {
	epochs := i.enterInPlace()
	m, err := i.lookupFor(t, off, int64(len(p)), forWriting)
	if err == nil && m.inPlace() && m.length == int64(len(p)) {
		err = i.writeData(t, p, m.host, flags)
		i.exitInPlace(epochs)
		return err
	}
	var parts []part
	if err == nil && m.inPlace() {
		parts, err = i.partsInPlace(t, p, off, m)
	}
	if err == nil && parts != nil {
		err = parallel(t, len(parts), func(t *blockcore.Task, k int) error {
			return i.writeData(t, parts[k].p, parts[k].m.host, flags)
		})
		i.exitInPlace(epochs)
		return err
	}
	i.exitInPlace(epochs)
	if err != nil {
		return err
	}
	return i.writeChanging(t, p, off, flags)
}

// inPlace reports whether guest data can be written where it is.
func (m *mapping) inPlace() bool { return m.kind == format.Normal && m.copied }

// partsInPlace splits a write that goes to several places; nil = some of it has to be allocated.
func (i *Image) partsInPlace(t *blockcore.Task, p []byte, off format.Guest, m mapping) ([]part, error) {
	var parts []part
	for {
		parts = append(parts, part{m: m, off: off, p: p[:m.length]})
		p, off = p[m.length:], off+format.Guest(m.length)
		if len(p) == 0 {
			return parts, nil
		}
		var err error
		if m, err = i.lookupFor(t, off, int64(len(p)), forWriting); err != nil || !m.inPlace() {
			return nil, err
		}
	}
}

// clustersOf is the range of whole clusters around some bytes.
func (i *Image) clustersOf(off format.Guest, lengthBytes int64) blockcore.Range {
	return blockcore.Range{Offset: int64(off), Length: lengthBytes}.Widen(i.g.ClusterBytes())
}

// writeChanging writes what needs changes of L2 entries. Nobody else changes those of these clusters meanwhile.
func (i *Image) writeChanging(t *blockcore.Task, p []byte, off format.Guest, flags blockcore.WriteFlags) error {
	lock := i.changes.Acquire(t, i.clustersOf(off, int64(len(p))), true)
	defer i.changes.Release(lock)
	spans, err := i.spans(t, p, off)
	if err != nil {
		return err
	}
	if err := i.prepare(t, off, int64(len(p))); err != nil {
		return err
	}
	return parallel(t, len(spans), func(t *blockcore.Task, k int) error { return i.writeSpan(t, &spans[k], flags) })
}

// prepare sees to it that the L2 entries of a range may be changed.
func (i *Image) prepare(t *blockcore.Task, off format.Guest, lengthBytes int64) error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.unmarked {
		if err := i.mark(t); err != nil {
			return err
		}
	}
	if err := i.soilImage(t); err != nil {
		return err
	}
	for index := i.g.L1Index(off); index <= i.g.L1Index(off+format.Guest(lengthBytes-1)); index++ {
		if err := i.ownTable(t, index); err != nil {
			return err
		}
	}
	return nil
}
