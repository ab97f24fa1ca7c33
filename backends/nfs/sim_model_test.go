package nfs

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

const (
	// simCellBytes is the unit in which the simulation writes, reads and checks: a tag, again and again.
	simCellBytes = 64
	// simNever is later than everything.
	simNever = math.MaxInt64
)

// simModel is what clients may see of the disk, and what must be on stable storage: for each cell the writes that there were.
type simModel struct {
	cells  [][]*simMark
	open   []*simWrite // not durable yet
	losses int         // times that the server has lost data
}

// simWrite is a write of some cells, in the order of the simulation's events. One that failed may have happened or not: it is optional. One that timed out may
// still happen, so it never ends.
type simWrite struct {
	tag        uint64
	begin, end int64
	optional   bool
	durable    bool
}

// simMark is a write in one of its cells.
type simMark struct {
	*simWrite
	seen   int64 // when a read that has seen it there had ended
	losses int   // how many there had been when that read began
}

// grow has the model reach to so many cells. What is new was never written.
func (m *simModel) grow(cells int) {
	for len(m.cells) < cells {
		m.cells = append(m.cells, []*simMark{{simWrite: &simWrite{begin: -1, end: -1, durable: true}, seen: simNever}})
	}
}

// cut notes that all from a cell on is being cut off: it may read as zeroes, and does once the change is done.
func (m *simModel) cut(from int, now int64) *simWrite {
	zero := &simWrite{begin: now, end: simNever, optional: true}
	for i := from; i < len(m.cells); i++ {
		m.cells[i] = append(m.cells[i], &simMark{zero, simNever, 0})
	}
	return zero
}

// begin notes a write of n cells from first on.
func (m *simModel) begin(tag uint64, first, n int, now int64) *simWrite {
	w := &simWrite{tag: tag, begin: now, end: simNever}
	m.grow(first + n)
	for i := first; i < first+n; i++ {
		m.cells[i] = append(m.cells[i], &simMark{w, simNever, 0})
	}
	m.open = append(m.open, w)
	return w
}

// flushed makes all writes durable that had ended at since.
func (m *simModel) flushed(since int64) {
	m.open = slices.DeleteFunc(m.open, func(w *simWrite) bool {
		w.durable = w.durable || w.end < since && !w.optional
		return w.durable
	})
}

// read says what is wrong with tag as what a read that began at begin, after so many losses, and has just ended, has found.
func (m *simModel) read(cell int, tag uint64, begin int64, losses int, now int64) error {
	m.grow(cell + 1)
	w, err := m.find(cell, tag, func(later *simMark) bool {
		return !later.optional && later.end < begin || later.seen < begin && (later.losses == m.losses && !later.optional)
	})
	if err == nil && tag != 0 && (now < w.seen || w.losses < losses) { // zeroes may be of another write
		w.seen, w.losses = now, losses
	}
	return err
}

// stable says what is wrong with tag as what is on stable storage now.
func (m *simModel) stable(cell int, tag uint64) error {
	_, err := m.find(cell, tag, func(later *simMark) bool { return later.durable })
	return err
}

// find looks for the write that tag is of, which no later one of the sort that stands may have replaced.
func (m *simModel) find(cell int, tag uint64, stands func(*simMark) bool) (*simMark, error) {
	why := "nobody wrote"
	for _, w := range slices.Backward(m.cells[cell]) {
		if w.tag != tag {
			continue
		}
		later := slices.IndexFunc(m.cells[cell], func(later *simMark) bool { return w.end < later.begin && stands(later) })
		if later < 0 {
			return w, nil
		}
		why = fmt.Sprintf("was replaced by %v", m.cells[cell][later])
	}
	return nil, fmt.Errorf("cell %d holds %#x, which %s; its last writes are %v", cell, tag, why, m.cells[cell][max(0, len(m.cells[cell])-5):])
}

func (w *simWrite) String() string {
	s := fmt.Sprintf("%#x@%d-", w.tag, w.begin)
	if w.end != simNever {
		s += fmt.Sprint(w.end)
	}
	if w.optional {
		s += "?"
	}
	if w.durable {
		s += "!"
	}
	return s
}

// fillCells writes a tag all over p.
func fillCells(p []byte, tag uint64) {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.BigEndian.PutUint64(p[i:], tag)
	}
}

// cellTag is the tag in a cell, which must be the same all over it.
func cellTag(p []byte) (uint64, error) {
	tag := binary.BigEndian.Uint64(p)
	for i := 8; i+8 <= len(p); i += 8 {
		if other := binary.BigEndian.Uint64(p[i:]); other != tag {
			return 0, fmt.Errorf("a cell has %#x at its beginning and %#x at %d", tag, other, i)
		}
	}
	return tag, nil
}
