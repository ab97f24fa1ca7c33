package simkit

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

const (
	// CellBytes is the size of a cell, the unit in which contents are written and checked.
	CellBytes = 64
	// Never is later than everything.
	Never = math.MaxInt64
)

// Fill writes a tag all over p.
func Fill(p []byte, tag uint64) {
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], tag)
	}
}

// Tag returns what a cell was filled with, which must be the same all over it.
func Tag(p []byte) (uint64, error) {
	tag := binary.LittleEndian.Uint64(p)
	for i := 8; i+8 <= len(p); i += 8 {
		if other := binary.LittleEndian.Uint64(p[i:]); other != tag {
			return tag, fmt.Errorf("a cell that is torn has %#x at its beginning and %#x at %d", tag, other, i)
		}
	}
	return tag, nil
}

// Write is a write of some cells, in the order of the simulation's events: Begin and End are Ticks. One that is optional may have happened or not: it has
// failed, or it is a discard. One that may still happen never ends.
type Write struct {
	Tag        uint64
	Begin, End int64
	Optional   bool
	Durable    bool
}

// Noted is what is known of a write in one cell: a Write, or what embeds one.
type Noted interface{ Note() *Write }

// Note implements Noted.
func (w *Write) Note() *Write { return w }

// Find looks in a cell for the write that tag is of, which no later one of the sort that stands may have replaced.
func Find[N Noted](cell []N, tag uint64, stands func(later N) bool) (found N, err error) {
	why := "nobody wrote"
	for _, n := range slices.Backward(cell) {
		w := n.Note()
		if w.Tag != tag {
			continue
		}
		later := slices.IndexFunc(cell, func(later N) bool { return w.End < later.Note().Begin && stands(later) })
		if later < 0 {
			return n, nil
		}
		why = fmt.Sprintf("was replaced by %v", cell[later].Note())
	}
	var last []*Write
	for _, n := range cell[max(0, len(cell)-5):] {
		last = append(last, n.Note())
	}
	return found, fmt.Errorf("holds %#x, which %s; its last writes are %v", tag, why, last)
}

func (w *Write) String() string {
	s := fmt.Sprintf("%#x@%d-", w.Tag, w.Begin)
	if w.End != Never {
		s += fmt.Sprint(w.End)
	}
	if w.Optional {
		s += "?"
	}
	if w.Durable {
		s += "!"
	}
	return s
}

// Flushed makes all writes of open durable that had ended at since, and returns those that are not yet.
func Flushed(open []*Write, since int64) []*Write {
	return slices.DeleteFunc(open, func(w *Write) bool {
		w.Durable = w.Durable || w.End < since && !w.Optional
		return w.Durable
	})
}
