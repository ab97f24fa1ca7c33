package sim

import (
	"fmt"
	"maps"
	"slices"

	"nbd-dataplane/blockcore"
)

// bitmap is a dirty bitmap of a node and what the model says of it: whatever was written to the node since the bitmap began is marked, and nothing else
// that is not in one granule with such a thing.
//
// A write counts from its end in the driver on, while the node marks it only when the whole of it has ended: in between the bitmap may be disabled or
// cleared, and a write that has not ended may be seen or not by who does that. Where requests are in flight the last writes are therefore taken out of must
// then, or into may (layer.recent).
//
// Of a file or a disk that a power cut left, or a close, a bitmap is right or said to be in use.
type bitmap struct {
	// Immutable.
	layer      *layer
	name       string
	bits       uint // of the granularity
	persistent bool

	// Owned by the context. Controllers change it where no loop runs meanwhile.
	enabled bool
	leaving bool // it is being removed
	loose   bool // it may have been merged what is not known exactly
	tally
	since []*tally // what was written while merges may still be undone
}

// exact reports whether the node tells its driver of each write as it is, so that it is known what may be marked.
func (l *layer) exact() bool {
	switch d := l.self.(type) {
	case *disk:
		return d.limits.Align == 1 && d.limits.TransferMax == 0
	case *image:
		return true
	}
	return false
}

// tally is what was written.
type tally struct {
	must granules
	done granules // of must, what did not fail: an image may have refused it before it changed anything
	may  granules
}

func newTally() tally { return tally{granules{}, granules{}, granules{}} }

// granules are numbers of pieces of a node.
type granules map[int64]bool

// add adds what a range touches.
func (g granules) add(r blockcore.Range, bits uint) {
	if r.Length <= 0 {
		return
	}
	for n := r.Offset >> bits; n<<bits < r.End(); n++ {
		g[n] = true
	}
}

// remove takes out what a range touches.
func (g granules) remove(r blockcore.Range, bits uint) {
	touched := granules{}
	touched.add(r, bits)
	for n := range touched {
		delete(g, n)
	}
}

// widen adds what another bitmap has.
func (g granules) widen(bits uint, other granules, otherBits uint) {
	for n := range other {
		g.add(blockcore.Range{Offset: n << otherBits, Length: 1 << otherBits}, bits)
	}
}

// writes notes that a range is being written, and returns how to note that it was, with an error or not.
func (l *layer) writes(r blockcore.Range, err *error) (ends func()) {
	l.recent = append(l.recent, r)
	l.note(r, false, nil)
	return func() { l.note(r, true, *err) }
}

// note notes a write that begins, or has ended.
func (l *layer) note(r blockcore.Range, ended bool, err error) {
	for _, b := range l.bitmaps {
		for _, one := range b.tallies() {
			if !b.enabled {
				continue
			}
			one.may.add(r, b.bits)
			if ended {
				one.must.add(r, b.bits)
			}
			if ended && err == nil {
				one.done.add(r, b.bits)
			}
		}
	}
}

func (b *bitmap) tallies() []*tally { return append([]*tally{&b.tally}, b.since...) }

// unsure calls fn for writes that may have ended or not.
func (l *layer) unsure(fn func(r blockcore.Range)) {
	if l.node.InFlight() == 0 {
		l.recent = l.recent[:0]
	}
	for _, r := range l.recent {
		fn(r)
	}
}

// enable is what becomes of the model when b is enabled, or disabled.
func (b *bitmap) enable(enabled bool) {
	b.layer.unsure(func(r blockcore.Range) {
		for _, one := range b.tallies() {
			if enabled {
				one.may.add(r, b.bits)
			} else {
				one.must.remove(r, b.bits)
				one.done.remove(r, b.bits)
			}
		}
	})
	b.enabled = enabled
}

// clear is that when b is cleared. undo has it be as before, but for what was written since.
func (b *bitmap) clear() (undo func()) {
	before := b.tally
	b.tally = newTally()
	b.layer.unsure(func(r blockcore.Range) { b.may.add(r, b.bits) })
	return func() { b.join(&before) }
}

// merge is that when what is in another one is marked in b, for good when undo is not called: it takes out what came by that alone. One of the two is.
func (b *bitmap) merge(from *bitmap) (undo, done func()) {
	b.loose = b.loose || from.loose || !from.layer.exact()
	before, since := newTally(), newTally()
	before.join(&b.tally)
	for _, sets := range [][2]granules{{b.must, from.must}, {b.done, from.done}} {
		ended := maps.Clone(sets[1])
		from.layer.unsure(func(r blockcore.Range) { ended.remove(r, from.bits) })
		sets[0].widen(b.bits, ended, from.bits)
	}
	b.may.widen(b.bits, from.may, from.bits)
	b.layer.unsure(func(r blockcore.Range) { since.may.add(r, b.bits) })
	b.since = append(b.since, &since)
	done = func() { b.since = slices.DeleteFunc(b.since, func(other *tally) bool { return other == &since }) }
	undo = func() {
		done()
		b.tally = before
		b.join(&since)
	}
	return undo, done
}

// join adds what another one has.
func (t *tally) join(other *tally) {
	maps.Copy(t.must, other.must)
	maps.Copy(t.done, other.done)
	maps.Copy(t.may, other.may)
}

// fitBitmaps drops what is behind the ends of nodes, some of which may have become shorter.
func (w *world) fitBitmaps() {
	for _, d := range w.layers {
		if l := d.common(); l.node != nil {
			l.fit(l.node.Size())
		}
	}
}

func (l *layer) fit(sizeBytes int64) {
	for _, b := range l.bitmaps {
		gone := func(n int64, _ bool) bool { return n<<b.bits >= sizeBytes }
		maps.DeleteFunc(b.must, gone)
		maps.DeleteFunc(b.done, gone)
	}
}

// compare says what is wrong with a bitmap in which must be marked what must says.
func (b *bitmap) compare(is *blockcore.Bitmap, sizeBytes int64, must granules) string {
	exact := b.layer.exact() && !b.loose
	for n := int64(0); n<<b.bits < sizeBytes; n++ {
		_, marked := is.Status(blockcore.Range{Offset: n << b.bits, Length: 1}, 1)
		if !marked && must[n] {
			return fmt.Sprintf("granule %d was written and is not marked", n)
		}
		if marked && exact && !b.may[n] {
			return fmt.Sprintf("granule %d was not written and is marked", n)
		}
	}
	return ""
}
