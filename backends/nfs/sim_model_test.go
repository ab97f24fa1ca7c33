package nfs

import (
	"fmt"

	"nbd-dataplane/internal/simkit"
)

// simModel is what clients may see of the disk, and what must be on stable storage: for each cell the writes that there were.
type simModel struct {
	cells  [][]*simMark
	open   []*simkit.Write // not durable yet
	losses int             // times that the server has lost data
}

// simMark is a write in one of its cells.
type simMark struct {
	*simkit.Write
	seen   int64 // when a read that has seen it there had ended
	losses int   // how many there had been when that read began
}

// grow has the model reach to so many cells. What is new was never written.
func (m *simModel) grow(cells int) {
	for len(m.cells) < cells {
		m.cells = append(m.cells, []*simMark{{&simkit.Write{Begin: -1, End: -1, Durable: true}, simkit.Never, 0}})
	}
}

// cut notes that all from a cell on is being cut off: it may read as zeroes, and does once the change is done.
func (m *simModel) cut(from int, now int64) *simkit.Write {
	zero := &simkit.Write{Begin: now, End: simkit.Never, Optional: true}
	for i := from; i < len(m.cells); i++ {
		m.cells[i] = append(m.cells[i], &simMark{zero, simkit.Never, 0})
	}
	return zero
}

// begin notes a write of n cells from first on.
func (m *simModel) begin(tag uint64, first, n int, now int64) *simkit.Write {
	w := &simkit.Write{Tag: tag, Begin: now, End: simkit.Never}
	m.grow(first + n)
	for i := first; i < first+n; i++ {
		m.cells[i] = append(m.cells[i], &simMark{w, simkit.Never, 0})
	}
	m.open = append(m.open, w)
	return w
}

// flushed makes all writes durable that had ended at since.
func (m *simModel) flushed(since int64) { m.open = simkit.Flushed(m.open, since) }

// read says what is wrong with tag as what a read that began at begin, after so many losses, and has just ended, has found.
func (m *simModel) read(cell int, tag uint64, begin int64, losses int, now int64) error {
	m.grow(cell + 1)
	w, err := m.find(cell, tag, func(later *simMark) bool {
		return !later.Optional && later.End < begin || later.seen < begin && (later.losses == m.losses && !later.Optional)
	})
	if err == nil && tag != 0 && (now < w.seen || w.losses < losses) { // zeroes may be of another write
		w.seen, w.losses = now, losses
	}
	return err
}

// stable says what is wrong with tag as what is on stable storage now.
func (m *simModel) stable(cell int, tag uint64) error {
	_, err := m.find(cell, tag, func(later *simMark) bool { return later.Durable })
	return err
}

// find looks for the write that tag is of, which no later one of the sort that stands may have replaced.
func (m *simModel) find(cell int, tag uint64, stands func(*simMark) bool) (*simMark, error) {
	w, err := simkit.Find(m.cells[cell], tag, stands)
	if err != nil {
		return nil, fmt.Errorf("cell %d %w", cell, err)
	}
	return w, nil
}
