package sim

import (
	"errors"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// replace copies a disk to a new one, which takes its place.
func (c *controller) replace() {
	w := c.w
	old, _ := c.pickLayer(isDisk).(*disk)
	if old == nil || w.locked[old.volume] {
		return
	}
	v := old.volume
	w.locked[v] = true
	defer delete(w.locked, v)
	c.within("replace", []*layer{&old.layer}, func(s *section) {
		if !w.here(&old.layer) {
			return
		}
		fresh := w.newDisk(w.newName("disk"), len(old.now), nil)
		fresh.copyFrom(old)
		c.park(c.pause())
		err := c.update("replace "+old.name, func(tx *blockcore.Tx) error {
			n, err := tx.AddNode(blockcore.NodeOptions{Name: fresh.name, Context: old.node.Context(), Driver: fresh})
			if err != nil {
				return err
			}
			w.enlist(fresh)
			if err := tx.Replace(s.d, old.node, n); err != nil {
				return err
			}
			old.volume, fresh.volume = nil, v
			return c.removeNode(tx, &old.layer)
		})
		if w.here(&old.layer) {
			old.volume, fresh.volume = v, nil
			w.delist(fresh)
			return
		}
		if err != nil && !errors.Is(err, errInjected) {
			w.Fail("replace of %s is done and not: %v", old.name, err)
		}
		w.delist(old)
	})
}

func (c *controller) resize() {
	w := c.w
	d := c.pickLayer(func(d driver) bool { return isStore(d) && isData(d) })
	if d == nil || w.locked[d.common().volume] {
		return
	}
	l := d.common()
	v := l.volume
	w.locked[v] = true
	defer delete(w.locked, v)
	cells := 64 * (1 + c.rng.IntN(4))
	c.within("resize", []*layer{l}, func(s *section) {
		if !w.here(l) {
			return
		}
		_ = c.updateWhole("resize "+l.name, func(tx *blockcore.Tx) error {
			c.attend()
			l.note(blockcore.Range{Offset: int64(cells) * simkit.CellBytes, Length: l.node.Size() - int64(cells)*simkit.CellBytes}, false, nil) // if it fails
			err := tx.Resize(s.d, l.node, int64(cells)*simkit.CellBytes)
			c.park(0)
			w.fitBitmaps()
			if err == nil {
				v.resize(cells, w.Tick())
			} else if isImage(d) {
				v.mayLose(cells, w.Tick())
			}
			return err
		})
		if d.Size() != v.sizeBytes() {
			w.Fail("%s has %d bytes after a resize that should have left %d", l.name, d.Size(), v.sizeBytes())
		}
	})
}

// crash has a disk lose what it may, and looks at what is left.
func (c *controller) crash() {
	c.onDisk("crash", func(d *disk) {
		d.crash()
		for cell, tag := range d.now {
			if err := d.volume.checkCrash(cell, tag); err != nil {
				c.w.Fail("after a crash of %s: %v", d.name, err)
				return
			}
		}
		d.volume.reset(d.now, c.w.Tick())
	})
}

// verify looks at all of a disk.
func (c *controller) verify() {
	c.onDisk("verify", func(d *disk) {
		now := c.w.Tick()
		for cell, tag := range d.now {
			if err := d.volume.check(cell, tag, now, now); err != nil {
				c.w.Fail("disk %s: %v", d.name, err)
				return
			}
		}
	})
}

// onDisk calls fn in a section over a disk.
func (c *controller) onDisk(why string, fn func(d *disk)) {
	w := c.w
	d, _ := c.pickLayer(isDisk).(*disk)
	if d == nil || w.locked[d.volume] {
		return
	}
	w.locked[d.volume] = true
	defer delete(w.locked, d.volume)
	c.within(why, []*layer{&d.layer}, func(*section) {
		if w.here(&d.layer) {
			fn(d)
		}
	})
}
