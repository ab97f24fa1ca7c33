package sim

import (
	"fmt"

	"nbd-dataplane/internal/simkit"
)

// volume is what a client should see of a disk: for each cell the writes that there were. Contents that are copied to another disk
// take their volume with them.
type volume struct {
	name  string
	cells [][]*simkit.Write
	open  []*simkit.Write // begun and not settled as durable
	maybe []int           // how many cells a power cut may leave as well, because changes of the size have failed
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
	zero := &simkit.Write{Begin: now, End: now, Durable: true}
	for range cells - old {
		v.cells = append(v.cells, []*simkit.Write{zero})
	}
}

// mayLose notes that a resize has failed: what it was to cut off may read as zeroes, or as what an image below has there, and a power cut may
// leave either size until something is written.
func (v *volume) mayLose(cells int, now int64) {
	v.maybe = append(v.maybe, cells)
	for i := cells; i < len(v.cells); i++ {
		for _, w := range append([]*simkit.Write{{}}, v.cells[i]...) {
			v.cells[i] = append(v.cells[i], &simkit.Write{Tag: w.Tag, Begin: now, End: now, Optional: true})
		}
	}
}

// mayBecome notes that a snapshot could not be applied: a power cut may leave it applied, until something is written.
func (v *volume) mayBecome(tags []uint64, now int64) {
	v.maybe = append(v.maybe, len(tags))
	for i := range min(len(tags), len(v.cells)) {
		v.cells[i] = append(v.cells[i], &simkit.Write{Tag: tags[i], Begin: now, End: now, Optional: true})
	}
}

// reset takes over what the cells hold, as one durable write.
func (v *volume) reset(tags []uint64, now int64) {
	v.open = nil
	for i, tag := range tags {
		v.cells[i] = []*simkit.Write{{Tag: tag, Begin: now, End: now, Durable: true}}
	}
}

// begin notes a write of n cells from first on.
func (v *volume) begin(w *simkit.Write, first, n int) {
	w.End = simkit.Never
	for i := first; i < first+n; i++ {
		v.cells[i] = append(v.cells[i], w)
	}
	v.open = append(v.open, w)
}

// flushed makes all writes durable that had ended at since.
func (v *volume) flushed(since int64) { v.open = simkit.Flushed(v.open, since) }

// check says what is wrong with tag as the answer to a read of a cell that began at begin. It is over now.
func (v *volume) check(cell int, tag uint64, begin int64) error {
	return v.find(cell, tag, func(later *simkit.Write) bool { return !later.Optional && later.End < begin })
}

// checkCrash says what is wrong with tag as what is left after a crash.
func (v *volume) checkCrash(cell int, tag uint64) error {
	return v.find(cell, tag, func(later *simkit.Write) bool { return !later.Optional && later.Durable })
}

func (v *volume) find(cell int, tag uint64, stands func(later *simkit.Write) bool) error {
	if _, err := simkit.Find(v.cells[cell], tag, stands); err != nil {
		return fmt.Errorf("%s cell %d %w", v.name, cell, err)
	}
	return nil
}
