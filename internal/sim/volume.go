package sim

import (
	"fmt"
	"math"
	"slices"
)

// cellBytes is the size of a cell, the unit in which contents are written and checked.
const cellBytes = 64

// never is later than everything.
const never = int64(math.MaxInt64)

// volume is what a client should see of a disk: for each cell the writes that there were. Contents that are copied to another disk
// take their volume with them.
type volume struct {
	name  string
	cells [][]*write
	open  []*write // begun and not settled as durable
	maybe []int    // how many cells a power cut may leave as well, because changes of the size have failed
}

// write is one write of some cells, in the order of the simulation's events. One that failed, and a discard, may
// have happened or not: it is optional.
type write struct {
	tag                 uint64
	begin, end, durable int64
	optional            bool
}

func newVolume(name string, cells int) *volume {
	v := &volume{name: name}
	v.resize(cells, 0)
	return v
}

func (v *volume) sizeBytes() int64 { return int64(len(v.cells)) * cellBytes }

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
	zero := &write{begin: now, end: now, durable: now}
	for range cells - old {
		v.cells = append(v.cells, []*write{zero})
	}
}

// mayLose notes that a resize has failed: what it was to cut off may read as zeroes, or as what an image below has there, and a power cut may
// leave either size until something is written.
func (v *volume) mayLose(cells int, now int64) {
	v.maybe = append(v.maybe, cells)
	for i := cells; i < len(v.cells); i++ {
		for _, w := range append([]*write{{}}, v.cells[i]...) {
			v.cells[i] = append(v.cells[i], &write{tag: w.tag, begin: now, end: now, durable: never, optional: true})
		}
	}
}

// mayBecome notes that a snapshot could not be applied: a power cut may leave it applied, until something is written.
func (v *volume) mayBecome(tags []uint64, now int64) {
	v.maybe = append(v.maybe, len(tags))
	for i := range min(len(tags), len(v.cells)) {
		v.cells[i] = append(v.cells[i], &write{tag: tags[i], begin: now, end: now, durable: never, optional: true})
	}
}

// reset takes over what the cells hold, as one durable write.
func (v *volume) reset(tags []uint64, now int64) {
	v.open = nil
	for i, tag := range tags {
		v.cells[i] = []*write{{tag: tag, begin: now, end: now, durable: now}}
	}
}

// begin notes a write of n cells from first on.
func (v *volume) begin(w *write, first, n int) {
	w.end, w.durable = never, never
	for i := first; i < first+n; i++ {
		v.cells[i] = append(v.cells[i], w)
	}
	v.open = append(v.open, w)
}

// flushed makes all writes durable that had ended at since.
func (v *volume) flushed(since, now int64) {
	v.open = slices.DeleteFunc(v.open, func(w *write) bool {
		if w.end <= since {
			w.durable = min(w.durable, now)
		}
		return w.durable != never
	})
}

// check says what is wrong with tag as the answer to a read of a cell that began at begin. It is over now.
func (v *volume) check(cell int, tag uint64, begin int64) error {
	return v.find(cell, tag, func(w *write) bool {
		return !v.covered(cell, w, func(later *write) bool { return later.end < begin })
	})
}

// checkCrash says what is wrong with tag as what is left after a crash.
func (v *volume) checkCrash(cell int, tag uint64) error {
	return v.find(cell, tag, func(w *write) bool {
		return !v.covered(cell, w, func(later *write) bool { return later.durable != never })
	})
}

func (v *volume) find(cell int, tag uint64, allowed func(*write) bool) error {
	seen := "nobody wrote"
	for _, w := range v.cells[cell] {
		if w.tag != tag {
			continue
		}
		if allowed(w) {
			return nil
		}
		seen = fmt.Sprintf("was written from %d to %d and is gone since", w.begin, w.end)
	}
	return fmt.Errorf("%s cell %d holds %#x, which %s; its last writes are %v", v.name, cell, tag, seen, v.last(cell))
}

// covered reports whether a write that began after w had ended has replaced it.
func (v *volume) covered(cell int, w *write, stands func(*write) bool) bool {
	return slices.ContainsFunc(v.cells[cell], func(later *write) bool {
		return !later.optional && w.end < later.begin && stands(later)
	})
}

func (v *volume) last(cell int) []string {
	var list []string
	for _, w := range v.cells[cell][max(0, len(v.cells[cell])-4):] {
		list = append(list, w.String())
	}
	return list
}

func (w *write) String() string {
	s := fmt.Sprintf("%#x@%d", w.tag, w.begin)
	if w.end != never {
		s += fmt.Sprintf("-%d", w.end)
	}
	if w.optional {
		s += "?"
	}
	if w.durable != never {
		s += "!"
	}
	return s
}
