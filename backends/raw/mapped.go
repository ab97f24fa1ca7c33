package raw

import "nbd-dataplane/blockcore"

const (
	// storeMax is the longest write that goes through the mapping, in bytes: for several pages write(2) costs
	// little more than for one, and their faults add up.
	storeMax = 16 << 10
	// loadMax is the longest read that does.
	loadMax = 32 << 10
)

// storeMapped puts p at pos of the file by a store into its page cache, if p's pages are there and it pays. It reports whether
// it has; if not, nothing was promised.
func (f *File) storeMapped(t *blockcore.Task, p []byte, pos int64) bool {
	v := f.views
	if v == nil || len(p) > storeMax {
		return false
	}
	w := v.at(t, pos, len(p))
	if w == nil {
		return false
	}
	now := t.Latest()
	first, _ := w.pages(pos, len(p))
	if !v.wear.store(w.place(first)) && !v.eager || !v.residency.holds(w, pos, len(p), now) {
		return false
	}
	if !w.store(p, pos) {
		w.restUntil = now + faultRest
		return false
	}
	return true
}

// wrote tells the views that n bytes at pos came into the page cache by the ordinary way.
func (f *File) wrote(t *blockcore.Task, pos int64, n int) {
	v := f.views
	if v == nil || v.slots == nil || n <= 0 {
		return
	}
	part := pos / viewBytes
	s := &v.slots[part%int64(len(v.slots))]
	if s.view == nil || s.part != part || pos+int64(n) > s.view.end() {
		return
	}
	s.view.wrote(pos, n, t.Latest())
}

// loadMapped fills p from pos of the file by a load from its page cache, if all of it is there. It reports whether it has.
func (f *File) loadMapped(t *blockcore.Task, p []byte, pos int64) bool {
	v := f.views
	if v == nil || len(p) > loadMax {
		return false
	}
	now := t.Latest()
	if !v.loads.inline(now) {
		return false
	}
	w := v.at(t, pos, len(p))
	if w == nil || !v.residency.holds(w, pos, len(p), now) {
		return false
	}
	done := w.load(p, pos)
	end := t.Now()
	v.loads.observe(end, end-now, len(p))
	if !done {
		w.restUntil = end + faultRest
	}
	return done
}

// forgetPages drops what is believed of the pages of r, in offsets of the disk.
func (f *File) forgetPages(r blockcore.Range) {
	if f.views != nil {
		f.views.forget(blockcore.Range{Offset: f.base + r.Offset, Length: r.Length})
	}
}

// cleanedPages tells the views that the kernel was made to write everything back.
func (f *File) cleanedPages() {
	if f.views != nil {
		f.views.wear.cleaned()
	}
}

// mapsAlways says that neither pace nor cost keeps a write from the mapping.
func (f *File) mapsAlways() bool { return f.views != nil && f.views.eager }
