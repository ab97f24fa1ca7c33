package nbd

import (
	"slices"

	"nbd-dataplane/blockcore"
)

// ContextDirtyBitmap begins the names of the contexts of bitmaps. QEMU docs/interop/nbd.txt, "qemu:dirty-bitmap".
const ContextDirtyBitmap = "qemu:dirty-bitmap:"

// stateDirty is what is marked, in such a context.
const stateDirty = 1

// takeBitmaps keeps everybody from changing the bitmaps that are offered. One that is named twice is offered once.
func (e *Export) takeBitmaps(all []*blockcore.Bitmap) error {
	for _, b := range all {
		if slices.Contains(e.bitmaps, b) {
			continue
		}
		if err := b.Acquire(); err != nil {
			e.leaveBitmaps()
			return err
		}
		e.bitmaps = append(e.bitmaps, b)
	}
	return nil
}

// leaveBitmaps lets go what takeBitmaps has taken.
func (e *Export) leaveBitmaps() {
	e.unlist.Do(func() {
		for _, b := range e.bitmaps {
			b.Release()
		}
	})
}

// bitmap finds what a context tells of; nil = there is none. Names of two bitmaps of different nodes may be the same: the first one counts.
func (e *Export) bitmap(context string) *blockcore.Bitmap {
	if len(context) < len(ContextDirtyBitmap) || context[:len(ContextDirtyBitmap)] != ContextDirtyBitmap {
		return nil
	}
	for _, b := range e.bitmaps {
		if b.Name() == context[len(ContextDirtyBitmap):] {
			return b
		}
	}
	return nil
}

// bitmapContexts are the names of the contexts.
func (e *Export) bitmapContexts(names []string) []string {
	for _, b := range e.bitmaps {
		if name := ContextDirtyBitmap + b.Name(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// isBitmap reports whether the context tells of a bitmap, as it was agreed on.
func (m metaContext) isBitmap() bool {
	return len(m.name) > len(ContextDirtyBitmap) && m.name[:len(ContextDirtyBitmap)] == ContextDirtyBitmap
}

// bitmapRuns are what the context m of a bitmap tells of r. A connection may have come to another export than it agreed on, without that
// bitmap: all may have changed then.
func (c *Conn) bitmapRuns(m metaContext, r blockcore.Range, limit int) []run {
	lengths, marked := []int64{r.Length}, true
	if b := c.export.bitmap(m.name); b != nil {
		lengths, marked = b.Status(r, limit)
	}
	runs := make([]run, 0, len(lengths))
	for _, n := range lengths {
		s := uint64(0)
		if marked {
			s = stateDirty
		}
		if !c.mayGrow(0, n) {
			return append(runs, run{compactRunMax, s}) // the rest is the client's next question
		}
		runs = append(runs, run{uint64(n), s})
		marked = !marked
	}
	return runs
}
