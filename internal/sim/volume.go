package sim

import (
	"fmt"
	"math"

	"nbd-dataplane/internal/simkit"
)

// volume is what a client should see of a disk: for each cell what was read last, and the writes that there were. Contents that are copied to another disk
// take their volume with them.
type volume struct {
	name  string
	cells [][]share
	open  []*simkit.Write // begun and not settled as durable
	maybe []int           // how many cells a power cut may leave as well, because changes of the size have failed
}

// share is what a write has done to one cell; the first of a cell is the read that has looked at it last.
type share struct {
	write *simkit.Write
	by    int64 // when it has been done at the latest, if it is: what came behind it by rights has begun; 0 = it says so itself

	reads bool   // it is a read,
	found uint64 // of this
}

// unread is a tag that nobody writes.
const unread = math.MaxUint64

// newCell is one that nobody has read.
func newCell(tag uint64, now int64) []share {
	return []share{{write: &simkit.Write{Tag: unread}, reads: true}, {write: &simkit.Write{Tag: tag, Begin: now, End: now, Durable: true}}}
}

// Note implements simkit.Noted.
func (s share) Note() *simkit.Write {
	if s.by == 0 || s.by > s.write.End {
		return s.write
	}
	early := *s.write
	early.Begin, early.End = min(early.Begin, s.by), s.by
	return &early
}

// stood reports whether the cell held what s was about at some time before a read began that has found tag.
func (s share) stood(tag uint64, begin int64) bool {
	if s.write.End >= begin {
		return false
	}
	return s.reads && s.found != tag || !s.reads && !s.write.Optional
}

func newVolume(name string, cells int) *volume {
	v := &volume{name: name}
	v.resize(cells, 0)
	return v
}

func (v *volume) sizeBytes() int64 { return int64(len(v.cells)) * simkit.CellBytes }

// resize makes v longer by zeroes, or shorter.
func (v *volume) resize(cells int, now int64) {
	old := len(v.cells)
	if cells != old { // or there was nothing to be done
		v.maybe = nil
	}
	if cells < old {
		v.cells = v.cells[:cells:cells]
		return
	}
	for range cells - old {
		v.cells = append(v.cells, newCell(0, now))
	}
}

// mayLose notes that a resize has failed: what it was to cut off may read as zeroes, or as what an image below has there, and a power cut may
// leave either size until something is written.
func (v *volume) mayLose(cells int, now int64) {
	v.maybe = append(v.maybe, cells)
	for i := cells; i < len(v.cells); i++ {
		tags := []uint64{0}
		for _, s := range v.cells[i][1:] {
			tags = append(tags, s.write.Tag)
		}
		for _, tag := range tags {
			v.mayHold(i, tag, now)
		}
	}
}

// mayBecome notes that a snapshot could not be applied: a power cut may leave it applied, until something is written.
func (v *volume) mayBecome(tags []uint64, now int64) {
	v.maybe = append(v.maybe, len(tags))
	for i := range min(len(tags), len(v.cells)) {
		v.mayHold(i, tags[i], now)
	}
}

// mayHold notes that a cell may hold something from now on.
func (v *volume) mayHold(cell int, tag uint64, now int64) {
	v.cells[cell] = append(v.cells[cell], share{write: &simkit.Write{Tag: tag, Begin: now, End: now, Optional: true}})
}

// reset takes over what the cells hold, as one durable write.
func (v *volume) reset(tags []uint64, now int64) {
	v.open = nil
	for i, tag := range tags {
		v.cells[i] = newCell(tag, now)
	}
}

// begin notes a write of n cells from first on.
func (v *volume) begin(w *simkit.Write, first, n int) {
	w.End = simkit.Never
	for i := first; i < first+n; i++ {
		v.cells[i] = append(v.cells[i], share{write: w})
	}
	v.open = append(v.open, w)
}

// precede notes that a write, if it is done at all in n cells from first on, was done there by a time: something has begun that comes behind it.
func (v *volume) precede(w *simkit.Write, first, n int, by int64) {
	for i := first; i < min(first+n, len(v.cells)); i++ {
		for k := range v.cells[i] {
			if s := &v.cells[i][k]; s.write == w && (s.by == 0 || s.by > by) {
				s.by = by
			}
		}
	}
}

// flushed makes all writes durable that had ended at since.
func (v *volume) flushed(since int64) { v.open = simkit.Flushed(v.open, since) }

// check says what is wrong with tag as the answer to a read of a cell that began at begin and is over now. If nothing is, no later read may find what was
// over before this one began, but what this one has found: a write that was in doubt has been done or not.
func (v *volume) check(cell int, tag uint64, begin, now int64) error {
	err := v.find(cell, tag, func(later share) bool { return later.stood(tag, begin) })
	if last := &v.cells[cell][0]; err == nil && last.write.Begin < begin {
		*last = share{write: &simkit.Write{Tag: unread, Begin: begin, End: now}, reads: true, found: tag}
	}
	return err
}

// checkCrash says what is wrong with tag as what is left after a crash.
func (v *volume) checkCrash(cell int, tag uint64) error {
	return v.find(cell, tag, func(later share) bool { return !later.reads && !later.write.Optional && later.write.Durable })
}

func (v *volume) find(cell int, tag uint64, stands func(later share) bool) error {
	if _, err := simkit.Find(v.cells[cell], tag, stands); err != nil {
		last := v.cells[cell][0]
		return fmt.Errorf("%s cell %d %w; it was last read at %d-%d as %#x", v.name, cell, err, last.write.Begin, last.write.End, last.found)
	}
	return nil
}
