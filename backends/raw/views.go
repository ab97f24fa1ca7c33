package raw

import (
	"time"

	"nbd-dataplane/blockcore"
)

const (
	// slotsMax is how many views a file may have: all that the process may map.
	slotsMax = mappedMax / viewBytes
	// mapAfter is how many requests more a part of the file must have had than others that want its slot before it is
	// mapped. Mapping and unmapping cost as much as some hundred requests.
	mapAfter = 256
	// scoreMax bounds how long a part that was busy once keeps its slot.
	scoreMax = 4096
	// viewIdle is after how long a view that nobody uses is given up, and after how long the kernel has written back
	// what was stored, by its default (dirty_expire_centisecs).
	viewIdle = 30 * time.Second
)

// views are the mapped parts of a file. There is a slot for each of as many parts as may be mapped; on a larger disk parts
// share a slot, and hold a vote over it (Boyer and Moore's): a request to the one that has it counts for it, one to
// another against it, and at nothing the other takes over. So what is busy is mapped, and requests spread over a
// disk much larger than all views map nothing.
//
//	part of the disk    0    1    2  ...  63   64   65  ...
//	slot                0    1    2  ...  63    0    1  ...
type views struct {
	// Immutable.
	fd       int
	writable bool
	eager    bool // map at the first request, ask anew what is resident at each, and do not ask whether it pays
	shy      bool // only while nobody else could be made to wait, see neighbours
	budget   *mapBudget

	// Owned by the context.
	eof       int64  // nothing behind it is mapped
	slots     []slot // made with the first request
	residency residency
	wear      wear
	sweeper   *blockcore.Timer // runs while there may be a view; nil = not
	loads     pace
}

// slot is the place of one view.
type slot struct {
	// Owned by the context.
	part  int64 // start of the view, in units of viewBytes
	score int32
	view  *view // nil = not mapped (yet)
}

func newViews(o *Options, fd int, d device) *views {
	v := &views{fd: fd, eof: d.sizeBytes, writable: !o.ReadOnly, eager: o.Map == MapAlways, shy: o.Map == MapAuto, budget: &mapped,
		residency: residency{fd: fd, lasts: residentFor}}
	if v.eager {
		v.residency.lasts = 0
	}
	return v
}

// at counts a request for n bytes at pos of the file, and returns the view that has them all, or nil.
func (v *views) at(t *blockcore.Task, pos int64, n int) *view {
	if v.shy && served.several.Load() {
		return nil
	}
	part := pos / viewBytes
	if pos+int64(n) > min(v.eof, (part+1)*viewBytes) {
		return nil
	}
	if v.slots == nil {
		v.slots = make([]slot, min(slotsMax, (v.eof+viewBytes-1)/viewBytes))
	}
	s := &v.slots[part%int64(len(v.slots))]
	if s.part != part {
		if s.score--; s.score > 0 {
			return nil
		}
		v.retire(t.Context(), s)
		*s = slot{part: part}
	}
	s.score = min(s.score+1, scoreMax)
	if s.view != nil && pos+int64(n) > s.view.end() { // the file has become longer since it was mapped
		v.retire(t.Context(), s)
	}
	if s.view == nil && !v.open(t.Context(), s) {
		return nil
	}
	s.view.used = true
	if t.Latest() < s.view.restUntil {
		return nil
	}
	return s.view
}

// open maps the part of the slot if it has deserved that.
func (v *views) open(c *blockcore.AioContext, s *slot) bool {
	if s.score < mapAfter && !v.eager {
		return false
	}
	start := s.part * viewBytes
	length := min(viewBytes, (v.eof-start+pageSize-1)&^(pageSize-1))
	s.view = openView(v.fd, start, length, v.writable, v.budget)
	if s.view == nil {
		s.score = 1 // and no further attempt for a while
		return false
	}
	if v.sweeper == nil {
		v.sweeper = c.After(viewIdle, func() { v.sweep(c) })
	}
	return true
}

// extend takes a file that has become longer. Where parts get other slots by that, the views in the old ones are used no more and
// given up by and by.
func (v *views) extend(eof int64) {
	if v == nil {
		return
	}
	v.eof = eof
	if n := min(slotsMax, (eof+viewBytes-1)/viewBytes); v.slots != nil && int64(len(v.slots)) < n {
		v.slots = append(v.slots, make([]slot, n-int64(len(v.slots)))...)
	}
}

// retire gives up the view of a slot, if there is one.
func (v *views) retire(c *blockcore.AioContext, s *slot) {
	w := s.view
	if w == nil {
		return
	}
	s.view = nil
	c.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
		_ = t.Block(func() error { w.close(); return nil })
	}))
}

// sweep gives up the views that nobody has used since it ran last, and comes again as long as there are others.
func (v *views) sweep(c *blockcore.AioContext) {
	v.wear.cleaned()
	v.sweeper = nil
	for i := range v.slots {
		s := &v.slots[i]
		switch {
		case s.view == nil:
		case !s.view.used:
			v.retire(c, s)
			*s = slot{}
		default:
			s.view.used = false
			if v.sweeper == nil {
				v.sweeper = c.After(viewIdle, func() { v.sweep(c) })
			}
		}
	}
}

// takeAll empties the slots and returns the views that were in them, for a worker to close.
func (v *views) takeAll() []*view {
	if v == nil {
		return nil
	}
	if v.sweeper != nil {
		v.sweeper.Stop()
		v.sweeper = nil
	}
	var all []*view
	for i := range v.slots {
		if w := v.slots[i].view; w != nil {
			all = append(all, w)
		}
	}
	v.slots = nil
	return all
}

// closeViews is for a worker.
func closeViews(all []*view) {
	for _, w := range all {
		w.close()
	}
}

// detach stops what runs on a loop that the file leaves.
func (v *views) detach() {
	if v != nil && v.sweeper != nil {
		v.sweeper.Stop()
		v.sweeper = nil
	}
}

// attach has it run on the next one.
func (v *views) attach(c *blockcore.AioContext) {
	if v != nil && len(v.slots) > 0 && v.sweeper == nil {
		v.sweeper = c.After(viewIdle, func() { v.sweep(c) })
	}
}

// forget drops what is believed of the pages of r, in offsets of the file: they may be gone.
func (v *views) forget(r blockcore.Range) {
	for i := range v.slots {
		if w := v.slots[i].view; w != nil {
			if part := w.overlap(r); part.Length > 0 {
				w.forget(part.Offset, part.Length)
			}
		}
	}
}
