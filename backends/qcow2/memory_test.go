package qcow2

import (
	"math/rand/v2"
	"slices"
	"syscall"

	"nbd-dataplane/blockcore"
)

// The fault model: a power cut at any moment leaves what was written before a sync began that has ended, and of everything else that was handed to the disk any
// part, in sectors of 512 bytes. A durable write brings its own sectors to the disk, whoever has written to them before, and the length without which they would be behind the end, and
// nothing else, as RWF_DSYNC does. A request may fail; a write that fails may have done its first half, and a sync that fails is followed by others that do.

// history is what happened to some disks, and on top of them, in the order of time. Owned by the context.
type history struct {
	now   int
	ops   []*guestOp
	sizes []sizeOp
	flush []interval
}

// interval is from a beginning to an end; 0 = it has not ended.
type interval struct{ begin, end int }

func (h *history) tick() int {
	h.now++
	return h.now
}

// diskWrite is a write, or a change of the length if there are no data.
type diskWrite struct {
	interval
	off  int64
	data []byte
	was  int64 // the length before a change of it
	// stable is what durable writes have brought to the disk of it.
	stable []stretch
}

// stretch is sectors that are durable from a moment on.
type stretch struct {
	from, to int64 // bytes of the disk
	at       int
}

// stableAt reports whether a part of a write was durable at a moment; for a change of the length the part means nothing.
func (w *diskWrite) stableAt(from, to int64, at int) bool {
	return slices.ContainsFunc(w.stable, func(s stretch) bool { return s.at <= at && (w.data == nil || s.from <= from && to <= s.to) })
}

// over reports whether a change of the length must be durable for something that ends there to be found.
func (w *diskWrite) over(end int64) bool { return w.data == nil && end > min(w.off, w.was) }

// memory is a disk in memory that keeps its history. What is handed to it takes a while.
type memory struct {
	base   []byte // as it was in the beginning
	bytes  []byte
	writes []diskWrite
	syncs  []interval
	random *rand.Rand // nil = nothing takes time
	h      *history
	faults *faults // nil = there are none
	most   int64   // it becomes no longer; 0 = it does
}

func newMemory(base []byte, h *history, random *rand.Rand, f *faults) *memory {
	return &memory{base: base, bytes: append([]byte(nil), base...), random: random, h: h, faults: f}
}

func (m *memory) Size() int64 { return int64(len(m.bytes)) }

func (m *memory) dawdle(t *blockcore.Task) {
	if m.random == nil {
		return
	}
	for range m.random.IntN(4) {
		t.Yield()
	}
}

func (m *memory) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	m.dawdle(t)
	if err := m.faults.meet(faultRead); err != nil {
		return err
	}
	copy(p, m.bytes[off:])
	return nil
}

func (m *memory) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	n := len(m.writes)
	m.writes = append(m.writes, diskWrite{interval: interval{begin: m.h.tick()}, off: off, data: append([]byte{}, p...)})
	m.dawdle(t)
	err := m.faults.meet(faultWrite)
	if err != nil {
		p = p[:len(p)/2&^511]
		m.writes[n].data = m.writes[n].data[:len(p)]
	}
	copy(m.bytes[off:], p)
	m.writes[n].end = m.h.tick()
	if err == nil && flags&blockcore.WriteFUA != 0 {
		return m.settle(t, off, off+int64(len(p)))
	}
	return err
}

// settle makes what has been written to some sectors durable.
func (m *memory) settle(t *blockcore.Task, from, to int64) error {
	begin := m.h.tick()
	m.dawdle(t)
	if err := m.faults.meet(faultFlush); err != nil {
		return err
	}
	s := stretch{from &^ 511, (to + 511) &^ 511, m.h.tick()}
	length := false // the journal of a file system keeps the order of what changes lengths: with one of them those before it are durable
	for k := len(m.writes) - 1; k >= 0; k-- {
		w := &m.writes[k]
		switch {
		case w.end == 0 || w.end >= begin:
		case w.data == nil:
			if length = length || w.over(to); length {
				w.stable = append(w.stable, s)
			}
		case w.off < s.to && s.from < w.off+int64(len(w.data)):
			w.stable = append(w.stable, s)
		}
	}
	return nil
}

// Discard makes zeroes: who asks for it does not want what is there.
func (m *memory) Discard(t *blockcore.Task, r blockcore.Range) error {
	return m.WriteAt(t, make([]byte, r.Length), r.Offset, 0)
}

func (m *memory) Flush(t *blockcore.Task) error {
	n := len(m.syncs)
	m.syncs = append(m.syncs, interval{begin: m.h.tick()})
	m.dawdle(t)
	if err := m.faults.meet(faultFlush); err != nil {
		return err
	}
	m.syncs[n].end = m.h.tick()
	return nil
}

func (m *memory) Extend(t *blockcore.Task, toBytes int64) error {
	m.dawdle(t)
	if toBytes <= m.Size() {
		return nil
	}
	return m.Resize(t, toBytes)
}

func (m *memory) Resize(_ *blockcore.Task, sizeBytes int64) error {
	if err := m.faults.meet(faultResize); err != nil {
		return err
	}
	if m.most != 0 && sizeBytes > m.most {
		return syscall.ENOSPC
	}
	now := m.h.tick()
	m.writes = append(m.writes, diskWrite{interval: interval{now, now}, off: sizeBytes, was: m.Size()})
	m.bytes = append(m.bytes, make([]byte, max(sizeBytes-int64(len(m.bytes)), 0))...)[:sizeBytes]
	return nil
}

func (m *memory) Close(*blockcore.Task) error { return nil }

// faultKind is a kind of request that may fail.
type faultKind uint8

const (
	faultRead faultKind = iota
	faultWrite
	faultFlush
	faultResize
	faultKinds
)

func (k faultKind) String() string {
	return [...]string{"read", "write", "flush", "resize"}[k]
}

// faults has requests fail. Owned by the context.
type faults struct {
	armed bool
	kind  faultKind
	left  int // until the one that fails
	errno syscall.Errno
	// sticky: after a sync that failed all fail, until the disk is opened again, as for those of backends/raw.
	sticky, broken bool
	met            int // how many have failed

	random      *rand.Rand // nil = none fails by chance
	probability float64
}

// meet returns the error of a request, if it is to fail.
func (f *faults) meet(kind faultKind) error {
	switch {
	case f == nil:
		return nil
	case f.broken && kind == faultFlush:
		f.met++
		return f.errno
	case f.armed && f.random != nil:
		if f.random.Float64() >= f.probability {
			return nil
		}
		f.met++
		return f.errno
	case !f.armed || kind != f.kind:
		return nil
	}
	if f.left--; f.left >= 0 {
		return nil
	}
	f.armed = false
	f.broken = f.sticky && kind == faultFlush
	f.met++
	return f.errno
}
