package qcow2

import (
	"encoding/binary"
	"slices"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// l1Table is the active L1 table. Owned by the context.
type l1Table struct {
	entries []uint64
	at      format.Host
	dirty   map[int]struct{}             // sectors that have changed since a commit took them
	owning  map[int]*blockcore.WaitQueue // entries that get an L2 table of their own now
}

const entriesPerSector = format.SectorBytes / format.EntryBytes

func newL1Table(entries []uint64, at format.Host) l1Table {
	return l1Table{entries: entries, at: at, dirty: map[int]struct{}{}, owning: map[int]*blockcore.WaitQueue{}}
}

// readEntries reads a table of 64-bit numbers. What it needs of memory is bounded by the limits of the format.
func readEntries(t *blockcore.Task, e *blockcore.Edge, at format.Host, n int) ([]uint64, error) {
	entries := make([]uint64, n)
	buf := t.Buffers().Get(min(n*format.EntryBytes, pieceBytes))
	defer t.Buffers().Put(buf)
	for done := 0; done < n; {
		piece := buf[:min(len(buf), (n-done)*format.EntryBytes)]
		if err := readHost(t, e, piece, at+format.Host(done*format.EntryBytes)); err != nil {
			return nil, err
		}
		for k := range len(piece) / format.EntryBytes {
			entries[done+k] = format.Entry(piece, k)
		}
		done += len(piece) / format.EntryBytes
	}
	return entries, nil
}

func (l *l1Table) entry(index int) format.L1Entry {
	if index >= len(l.entries) {
		return 0
	}
	return format.L1Entry(l.entries[index])
}

func (l *l1Table) set(index int, e uint64) {
	l.entries[index] = e
	l.dirty[index/entriesPerSector] = struct{}{}
}

// sectors are parts of a table of entries as they are to be written.
type sectors struct {
	numbers []int
	bytes   []byte // from Buffers; one sector after the other
}

// takeSectors has a commit take what is dirty, as it is now.
func takeSectors(t *blockcore.Task, dirty map[int]struct{}, entries []uint64) *sectors {
	if len(dirty) == 0 {
		return nil
	}
	s := &sectors{bytes: t.Buffers().Get(len(dirty) * format.SectorBytes)}
	for number := range dirty {
		s.numbers = append(s.numbers, number)
	}
	clear(dirty)
	slices.Sort(s.numbers)
	clear(s.bytes)
	for k, number := range s.numbers {
		from := number * entriesPerSector
		for n, e := range entries[from:min(from+entriesPerSector, len(entries))] {
			binary.BigEndian.PutUint64(s.bytes[k*format.SectorBytes+n*format.EntryBytes:], e)
		}
	}
	return s
}

// writeSectors writes what was taken, neighbours at once, and gives it back. When it fails all of it is dirty again.
func (i *Image) writeSectors(t *blockcore.Task, s *sectors, at format.Host, dirty map[int]struct{}, kind metaKind) error {
	if s == nil {
		return nil
	}
	var err error
	for from := 0; from < len(s.numbers) && err == nil; {
		to := from + 1
		for to < len(s.numbers) && s.numbers[to] == s.numbers[to-1]+1 {
			to++
		}
		err = i.writeMeta(t, s.bytes[from*format.SectorBytes:to*format.SectorBytes], at+format.Host(s.numbers[from]*format.SectorBytes), kind)
		from = to
	}
	s.giveBack(t, dirty, err != nil)
	return err
}

func (s *sectors) giveBack(t *blockcore.Task, dirty map[int]struct{}, failed bool) {
	if s == nil || s.bytes == nil {
		return
	}
	if failed {
		for _, number := range s.numbers {
			dirty[number] = struct{}{}
		}
	}
	t.Buffers().Put(s.bytes)
	s.bytes = nil
}
