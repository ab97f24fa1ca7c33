package sim

import (
	"maps"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// snapshot takes, deletes or applies a snapshot inside of an image.
func (c *controller) snapshot() {
	w := c.w
	d, _ := c.pickLayer(isImage).(*image)
	if d == nil || w.locked[d.volume] {
		return
	}
	v := d.volume
	w.locked[v] = true
	defer delete(w.locked, v)
	c.within("snapshot", []*layer{&d.layer}, func(s *section) {
		if !w.here(&d.layer) {
			return
		}
		id, ok := pick(c.rng, slices.Sorted(maps.Keys(d.kept)))
		switch n := c.rng.IntN(4); {
		case !ok || n < 2 && len(d.kept) < 4:
			c.takeSnapshot(s, d)
		case n == 2:
			c.deleteSnapshot(s, d, id)
		default:
			c.applySnapshot(s, d, id)
		}
	})
}

// takeSnapshot keeps what the cells are now, and looks at them.
func (c *controller) takeSnapshot(s *section, d *image) {
	w := c.w
	var taken string
	var tags []uint64
	err := c.update("snapshot of "+d.name, func(tx *blockcore.Tx) error {
		c.attend()
		if err := tx.CreateSnapshot(s.d, d.node, blockcore.NewSnapshot{Name: w.newName("snapshot"), Taken: time.Unix(0, 0)}); err != nil {
			return err
		}
		return tx.Alter(s.d, d.node, func(t *blockcore.Task) (func(*blockcore.Task), error) {
			list, err := d.Snapshots(t)
			if err != nil {
				return nil, err
			}
			taken = list[len(list)-1].ID
			if w.heldBelow(d) {
				return nil, errBusy // it cannot be looked at
			}
			tags, err = c.cellsOf(t, d)
			return nil, err
		})
	})
	if err != nil {
		c.look(d)
		return
	}
	d.kept[taken] = tags
	w.Count("snapshots taken")
}

// heldBelow reports whether a settled section covers what d reads from.
func (w *world) heldBelow(d driver) bool {
	for _, e := range d.common().children() {
		below := e.Node().Driver().(driver)
		if w.coveredBy(below) != nil || w.heldBelow(below) {
			return true
		}
	}
	return false
}

// cellsOf reads all of an image in a section.
func (c *controller) cellsOf(t *blockcore.Task, d *image) ([]uint64, error) {
	p := t.Buffers().Get(int(d.Size()))
	defer t.Buffers().Put(p)
	if err := d.inner.ReadAt(t, p, 0); err != nil {
		return nil, err
	}
	now := c.w.Tick()
	var tags []uint64
	for at := 0; at < len(p); at += simkit.CellBytes {
		tag, err := simkit.Tag(p[at : at+simkit.CellBytes])
		if err == nil {
			err = d.volume.check(at/simkit.CellBytes, tag, now, now)
		}
		if err != nil {
			c.w.Fail("at a snapshot of %s: %v", d.name, err)
			return nil, err
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// deleteSnapshot gives one up. When that fails it is there or not.
func (c *controller) deleteSnapshot(s *section, d *image, id string) {
	err := c.updateWhole("delete a snapshot of "+d.name, func(tx *blockcore.Tx) error {
		c.attend()
		return tx.DeleteSnapshot(s.d, d.node, id)
	})
	if err == nil {
		c.w.Count("snapshots deleted")
	}
	c.look(d)
}

// applySnapshot makes an image what it was.
func (c *controller) applySnapshot(s *section, d *image, id string) {
	w := c.w
	tags := d.kept[id]
	err := c.updateWhole("apply a snapshot to "+d.name, func(tx *blockcore.Tx) error {
		c.attend()
		err := tx.ApplySnapshot(s.d, d.node, id)
		c.park(0)
		w.fitBitmaps()
		if err == nil {
			d.volume.resize(len(tags), w.Tick())
			d.volume.reset(tags, w.Tick())
		} else {
			d.volume.mayBecome(tags, w.Tick())
		}
		return err
	})
	if err == nil {
		w.Count("snapshots applied")
	}
	if d.Size() != d.volume.sizeBytes() {
		w.Fail("%s has %d bytes at a snapshot, and should have %d", d.name, d.Size(), d.volume.sizeBytes())
	}
	c.look(d)
}

// look sees which snapshots there are.
func (c *controller) look(d *image) {
	list, err := d.node.Snapshots()
	c.park(0)
	c.mayFail("the list of snapshots", err)
	if err != nil {
		return
	}
	there := map[string]bool{}
	for _, one := range list {
		there[one.ID] = true
	}
	maps.DeleteFunc(d.kept, func(id string, _ []uint64) bool { return !there[id] })
}
