package sim

import (
	"bytes"
	"slices"
	"time"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/blockcore"
)

// bitmapsMax is how many bitmaps a node has here.
const bitmapsMax = 4

// keepsBitmaps reports whether a node is one whose bitmaps are looked at.
func keepsBitmaps(d driver) bool {
	switch d.(type) {
	case *disk, *image, *real:
		return true
	}
	return false
}

// dirtyBitmap changes the bitmaps of a node, with and without a section, and compares them with what was written.
func (c *controller) dirtyBitmap() {
	w := c.w
	d := c.pickLayer(keepsBitmaps)
	if d == nil {
		return
	}
	l := d.common()
	b, _ := pick(c.rng, l.bitmaps)
	if c.rng.IntN(2) == 0 {
		c.changeBitmap(l, b)
		return
	}
	c.within("bitmap", []*layer{l}, func(*section) {
		if w.here(l) {
			c.changeBitmap(l, b)
			c.checkBitmaps(l)
		}
	})
}

// changeBitmap adds a bitmap, or changes one.
func (c *controller) changeBitmap(l *layer, b *bitmap) {
	n := c.rng.IntN(10)
	switch {
	case b == nil || n < 2 && len(l.bitmaps) < bitmapsMax:
		c.addBitmap(l)
	case n < 3:
		c.removeBitmap(b)
	case n < 5:
		c.onBitmap("clear", b, func(tx *blockcore.Tx, is *blockcore.Bitmap) error {
			err := tx.ClearBitmap(l.node, is)
			if err == nil {
				tx.Undo(b.clear(), nil)
			}
			return err
		})
	case n < 7:
		enabled := c.rng.IntN(3) > 0
		c.onBitmap("enable", b, func(tx *blockcore.Tx, is *blockcore.Bitmap) error {
			before := b.enabled
			err := tx.EnableBitmap(l.node, is, enabled)
			if err == nil {
				b.enable(enabled)
				tx.Undo(func() { b.enable(before) }, nil)
			}
			return err
		})
	default:
		c.mergeBitmap(b)
	}
}

func (c *controller) addBitmap(l *layer) {
	w := c.w
	b := &bitmap{layer: l, name: w.newName("bitmap"), bits: 9 + uint(c.rng.IntN(4)), tally: newTally(), enabled: c.rng.IntN(3) > 0}
	if i, ok := l.self.(*image); ok {
		b.persistent = c.rng.IntN(3) > 0 && i.inner.(*qcow2.Image).Header().Version > 2
	}
	err := c.update("add "+b.name+" to "+l.name, func(tx *blockcore.Tx) error {
		if !w.here(l) || b.readOnly() {
			return errGone // it would be lost
		}
		_, err := tx.AddBitmap(l.node, b.name, b.bits, blockcore.BitmapState{Enabled: b.enabled, Persistent: b.persistent})
		if err == nil {
			l.unsure(func(r blockcore.Range) { b.may.add(r, b.bits) })
			l.bitmaps = append(l.bitmaps, b)
			tx.Undo(b.forget, nil)
		}
		return err
	})
	if err == nil {
		w.Count("bitmaps added")
	}
}

// forget takes b out of the model.
func (b *bitmap) forget() {
	b.layer.bitmaps = slices.DeleteFunc(slices.Clone(b.layer.bitmaps), func(other *bitmap) bool { return other == b })
}

// onBitmap changes a bitmap. What may be in use on disk is written to.
func (c *controller) onBitmap(what string, b *bitmap, fn func(tx *blockcore.Tx, is *blockcore.Bitmap) error) {
	w := c.w
	err := c.update(what+" "+b.name, func(tx *blockcore.Tx) error {
		is := b.find()
		if is == nil || b.readOnly() {
			return errGone
		}
		if b.persistent {
			c.attend()
		}
		err := fn(tx, is)
		c.park(0)
		return err
	})
	if err == nil {
		w.Count("bitmaps changed")
	}
}

// find returns the bitmap, or nil where it or its node is gone.
func (b *bitmap) find() *blockcore.Bitmap {
	if !b.layer.w.here(b.layer) {
		return nil
	}
	return b.layer.node.Bitmaps().Find(b.name)
}

// readOnly reports whether b is kept where nothing can be written.
func (b *bitmap) readOnly() bool { return b.persistent && !b.layer.node.Writable() }

// mergeBitmap marks in b what is marked in another one, and sometimes in a third.
func (c *controller) mergeBitmap(b *bitmap) {
	var others []*bitmap
	for range 1 + c.rng.IntN(2) {
		list := b.layer.bitmaps // of the same size
		if d := c.pickLayer(keepsBitmaps); d != nil && c.rng.IntN(2) == 0 {
			list = d.common().bitmaps
		}
		if from, ok := pick(c.rng, list); ok {
			others = append(others, from)
		}
	}
	c.onBitmap("merge into", b, func(tx *blockcore.Tx, is *blockcore.Bitmap) error {
		for _, from := range others {
			other := from.find()
			if other == nil || b.layer.node.Size() != from.layer.node.Size() {
				return errGone
			}
			c.w.Log("%s: %s of %s (%d) merges %s of %s (%d)", c.name, b.name, b.layer.name, b.bits, from.name, from.layer.name, from.bits)
			if err := tx.MergeBitmap(b.layer.node, is, other); err != nil {
				return err
			}
			undo, done := b.merge(from)
			tx.Undo(undo, func() error { done(); return nil })
			c.w.Count("bitmaps merged")
			c.park(c.duration(200 * time.Microsecond)) // clients write
		}
		if c.rng.IntN(3) == 0 {
			return errHalfway
		}
		return nil
	})
}

// removeBitmap takes one away; it stays where that fails.
func (c *controller) removeBitmap(b *bitmap) {
	b.leaving = true
	c.onBitmap("remove", b, func(tx *blockcore.Tx, is *blockcore.Bitmap) error { return tx.RemoveBitmap(b.layer.node, is) })
	if b.find() == nil {
		b.forget()
		c.w.Count("bitmaps removed")
	}
	b.leaving = false
}

// checkBitmaps compares the bitmaps of a node in a section with the model.
func (c *controller) checkBitmaps(l *layer) {
	if !c.w.here(l) {
		return
	}
	l.fit(l.node.Size())
	for _, b := range l.bitmaps {
		is := b.find()
		if is == nil {
			if !b.leaving {
				c.w.Fail("%s of %s is gone", b.name, l.name)
			}
			continue
		}
		if info := is.Info(); info.Enabled != b.enabled || info.Inconsistent {
			c.w.Fail("%s of %s is %+v, and should be enabled %t", b.name, l.name, info, b.enabled)
		}
		if wrong := b.compare(is, l.node.Size(), b.must); wrong != "" {
			c.w.Fail("%s of %s: %s", b.name, l.name, wrong)
		}
		c.w.Count("bitmaps checked")
	}
}

// reopen has an image be opened with other options: what it keeps is stored, and in use again when something is written.
func (c *controller) reopen() {
	w := c.w
	d, _ := c.pickLayer(func(d driver) bool { _, ok := d.(*image); return ok }).(*image)
	if d == nil {
		return
	}
	l := &d.layer
	looks := c.rng.IntN(4)
	if looks > 1 { // what is written first has bitmaps be in use, also if it changes nothing, and may be the only thing
		w.zeroing = w.Now() + c.duration(time.Millisecond)
		c.park(c.duration(100 * time.Microsecond))
	}
	c.within("reopen", []*layer{l}, func(s *section) {
		if !w.here(l) {
			return
		}
		o, toggles := someOptions(c.rng), c.rng.IntN(2) == 0
		err := c.update("reopen "+l.name, func(tx *blockcore.Tx) error {
			c.attend()
			var err error
			o.ReadOnly = !l.node.Writable()
			if toggles && l.volume == nil { // nobody writes
				err = tx.SetAccess(s.d, l.node, l.node.Writable())
			} else {
				err = tx.Reopen(s.d, l.node, o)
			}
			c.park(0)
			return err
		})
		if err == nil {
			w.Count("reopened")
		} else if err != errHalfway {
			c.mayFail("reopen "+l.name, err)
		}
		c.checkBitmaps(l)
		if c.rng.IntN(2) == 0 {
			c.changeStored(d)
		}
	})
	for range looks {
		c.park(c.duration(50 * time.Microsecond))
		c.powerCutOf(d)
	}
}

// changeStored changes a bitmap that has just been stored, and looks at what a power cut would leave of that. A section covers the image.
func (c *controller) changeStored(d *image) {
	w := c.w
	b, ok := pick(c.rng, d.bitmaps)
	v := d.volume
	if !ok || v == nil || w.locked[v] || !w.here(&d.layer) {
		return
	}
	w.locked[v] = true
	defer delete(w.locked, v)
	c.changeBitmap(&d.layer, b)
	if w.here(&d.layer) {
		c.cutPower(d)
	}
}

// keptBitmaps is what the model says now of the bitmaps of an image.
func (i *image) keptBitmaps() (all []*bitmap) {
	for _, b := range i.bitmaps {
		now := *b
		now.tally = newTally()
		now.join(&b.tally)
		all = append(all, &now)
	}
	return all
}

// checkKept compares what a file has of the bitmaps of an image with the model. all: everything that is kept must be there.
func (c *controller) checkKept(d *image, model []*bitmap, left *qcow2.Image, all bool) {
	for _, b := range model {
		is := left.Bitmaps().Find(b.name)
		switch {
		case !b.persistent && is != nil:
			c.w.Fail("%s of %s is kept", b.name, d.name)
		case b.leaving || !b.persistent:
		case is == nil || is.Info().Inconsistent:
			if all {
				c.w.Fail("%s of %s is not kept", b.name, d.name)
			}
		default:
			c.compareKept(d, b, is, left.Size())
		}
	}
	for _, is := range left.Bitmaps().All() {
		known := slices.ContainsFunc(model, func(b *bitmap) bool { return b.name == is.Name() })
		if !known && !is.Info().Inconsistent {
			c.w.Fail("%s of %s was removed and is kept", is.Name(), d.name)
		}
	}
}

func (c *controller) compareKept(d *image, b *bitmap, is *blockcore.Bitmap, sizeBytes int64) {
	if info := is.Info(); info.Enabled != b.enabled {
		c.w.Fail("%s of %s is kept as enabled %t and is %t", b.name, d.name, info.Enabled, b.enabled)
	}
	if wrong := b.compare(is, sizeBytes, b.done); wrong != "" {
		c.w.Fail("%s of %s, as it is kept: %s", b.name, d.name, wrong)
	}
	c.w.Count("bitmaps found kept")
}

// checkClosed looks at what an image that was closed has left in its file.
func (c *controller) checkClosed(d *image, f *file, all bool) {
	w := c.w
	left := w.newFile(w.newName("left"), bytes.Clone(f.now))
	left.failing = 0
	p, err := c.openImage(left, f.node.Context(), w.newName("left"), qcow2.Options{ReadOnly: true})
	if err != nil {
		w.Fail("what %s has left: %v", d.name, err)
		return
	}
	c.checkKept(d, d.keptBitmaps(), p.image.inner.(*qcow2.Image), all)
	c.forget(p)
}
