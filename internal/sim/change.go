package sim

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
)

// changes is all that controllers do, and how often.
var changes = []change{
	{"drain", 20, (*controller).someDrain},
	{"hold", 10, (*controller).hold},
	{"nest", 6, (*controller).nest},
	{"insert", 12, (*controller).insert},
	{"remove", 8, (*controller).remove},
	{"replace", 8, (*controller).replace},
	{"resize", 8, (*controller).resize},
	{"move", 8, (*controller).move},
	{"open", 8, (*controller).open},
	{"close", 6, (*controller).shut},
	{"vanish", 20, (*controller).vanish},
	{"throttle", 8, (*controller).throttle},
	{"crash", 5, (*controller).crash},
	{"overlay", 6, (*controller).overlay},
	{"power cut", 5, (*controller).powerCut},
	{"bitmap", 10, (*controller).dirtyBitmap},
	{"reopen", 5, (*controller).reopen},
	{"snapshot", 8, (*controller).snapshot},
	{"switch", 5, (*controller).redirect},
	{"target", 5, (*controller).target},
	{"job", 4, (*controller).job},
	{"rules", 3, (*controller).rules},
	{"movable", 3, (*controller).movable},
	{"everything", 4, (*controller).everything},
	{"verify", 4, (*controller).verify},
}

var (
	errGone = errors.New("it is gone meanwhile")
	errBusy = errors.New("a cache, or somebody's section, is in the way")
)

func pick[T any](rng *rand.Rand, list []T) (one T, ok bool) {
	if len(list) == 0 {
		return one, false
	}
	return list[rng.IntN(len(list))], true
}

// pickLayer draws one of the nodes that wanted likes; nil = there is none.
func (c *controller) pickLayer(wanted func(driver) bool) driver {
	var list []driver
	for _, d := range c.w.layers {
		if wanted(d) {
			list = append(list, d)
		}
	}
	d, _ := pick(c.rng, list)
	return d
}

func isData(d driver) bool  { b := storeOf(d); return b != nil && b.volume != nil }
func isDisk(d driver) bool  { _, ok := d.(*disk); return ok && isData(d) }
func isImage(d driver) bool { _, ok := d.(*image); return ok && isData(d) }

// here reports whether a node is in the graph still.
func (w *world) here(l *layer) bool { return l.node != nil && w.graph.Node(l.name) == l.node }

// above returns the nodes that use d, directly or not, and d itself.
func (w *world) above(d driver) []driver {
	list := []driver{d}
	for i := 0; i < len(list); i++ {
		for _, other := range w.layers {
			if other.common().uses(list[i]) && !slices.Contains(list, other) {
				list = append(list, other)
			}
		}
	}
	return list
}

func hasCache(list []driver) bool {
	return slices.ContainsFunc(list, func(d driver) bool { _, ok := d.(*cache); return ok })
}

// open to others is a node below no cache: behind its back the contents are old.
func (w *world) hidden(d driver) bool { return hasCache(w.above(d)[1:]) }

func (w *world) cached(d driver) bool {
	for d != nil {
		if _, ok := d.(*cache); ok {
			return true
		}
		d = childOf(d)
	}
	return false
}

func (w *world) enlist(d driver) { w.layers = append(w.layers, d) }

func (w *world) delist(d driver) {
	w.layers = slices.DeleteFunc(slices.Clone(w.layers), func(other driver) bool { return other == d })
}

// removeNode is tx.RemoveNode; whether the change stands is seen by whether the node is in the graph.
func (c *controller) removeNode(tx *blockcore.Tx, l *layer) error {
	c.attend()
	return tx.RemoveNode(l.node)
}

// attend notes that the Update removes or resizes a node.
func (c *controller) attend() {
	c.attends++
	c.w.attended++
}

// addVolume makes a disk of its own, or an image.
func (c *controller) addVolume() {
	w := c.w
	v := newVolume(w.newName("volume"), 64*(1+c.rng.IntN(3)))
	w.volumes = append(w.volumes, v)
	if c.rng.IntN(3) == 0 {
		c.addImage(v)
		return
	}
	d := w.newDisk(w.newName("disk"), len(v.cells), v)
	loop, _ := pick(c.rng, w.Loops)
	_ = c.updateWhole("add "+d.name, func(tx *blockcore.Tx) error {
		_, err := tx.AddNode(blockcore.NodeOptions{Name: d.name, Context: loop.AioContext, Driver: d})
		w.enlist(d)
		return err
	})
}

// someSection draws what to drain.
func (c *controller) someSection() *section {
	s := &section{name: c.w.newName("section"), all: c.rng.IntN(10) == 0}
	for range c.rng.IntN(3) {
		if d := c.pickLayer(func(driver) bool { return true }); d != nil {
			s.layers = append(s.layers, d.common())
		}
	}
	for range c.rng.IntN(2) {
		if o, ok := pick(c.rng, c.w.owners); ok {
			s.owners = append(s.owners, o)
		}
	}
	return s
}

func (c *controller) someLimit() time.Duration {
	if c.rng.IntN(3) == 0 {
		return 1 + c.duration(2*time.Millisecond)
	}
	return drainMax
}

func (c *controller) someDrain() {
	s := c.drain(c.someSection(), c.someLimit())
	c.park(c.pause())
	c.end(s)
}

// hold drains and goes on to other changes.
func (c *controller) hold() {
	if len(c.sections) > 2 {
		c.endOne()
		return
	}
	if s := c.drain(c.someSection(), c.someLimit()); s != nil {
		c.sections = append(c.sections, s)
	}
}

func (c *controller) nest() {
	outer := c.drain(c.someSection(), c.someLimit())
	inner := c.drain(c.someSection(), c.someLimit())
	if c.rng.IntN(2) == 0 {
		outer, inner = inner, outer
	}
	c.end(inner)
	c.end(outer)
}

// insert puts a filter above a node.
func (c *controller) insert() {
	w := c.w
	var above driver
	below := c.pickLayer(isData)
	switch n := c.rng.IntN(6); {
	case n < 2:
		above = w.newReal(c.rng, isDisk(below))
	case n < 4 && isDisk(below):
		above = w.newCache(w.newName("cache"))
	default:
		above = w.newFilter(w.newName("filter"))
	}
	c.during("insert "+above.common().name, []*layer{below.common()}, func(tx *blockcore.Tx, s *section) error {
		if !w.here(below.common()) {
			return errGone
		}
		if hasCache([]driver{above}) && hasCache(w.above(below)) {
			return errBusy
		}
		n, err := tx.AddNode(blockcore.NodeOptions{
			Name: above.common().name, Driver: above,
			Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: below.common().node}},
		})
		if err != nil {
			return err
		}
		w.enlist(above)
		return tx.Replace(s.d, below.common().node, n)
	}, func(err error) {
		if err != nil {
			w.delist(above)
			forgo(above)
		}
	})
}

// remove takes a filter away.
func (c *controller) remove() {
	w := c.w
	d := c.pickLayer(func(d driver) bool { return childOf(d) != nil && !isStore(d) })
	if d == nil {
		return
	}
	l := d.common()
	drained := []*layer{l}
	if c.rng.IntN(2) == 0 {
		drained = append(drained, childOf(d).common())
	}
	c.during("remove "+l.name, drained, func(tx *blockcore.Tx, s *section) error {
		if !w.here(l) || l.target != nil {
			return errGone
		}
		if err := tx.Replace(s.d, l.node, childOf(d).common().node); err != nil {
			return err
		}
		return c.removeNode(tx, l)
	}, func(err error) {
		switch {
		case !w.here(l):
			w.delist(d)
		case err == nil:
			w.Fail("node %s is removed and there", l.name)
		case !slices.Contains(w.layers, d):
			w.enlist(d) // another controller has looked while it was gone
		}
	})
}

// move is Graph.Move with a stop between the section and the change, and changes that fail when all has moved.
func (c *controller) move() {
	w := c.w
	d := c.pickLayer(func(driver) bool { return true })
	loop, _ := pick(c.rng, w.Loops)
	var drained []*layer
	for _, n := range w.graph.Component(d.common().node) {
		drained = append(drained, n.Driver().(driver).common())
	}
	c.within("move", drained, func(s *section) {
		begun := false
		err := c.update("move "+d.common().name+" to "+loop.Name(), func(tx *blockcore.Tx) error {
			if !w.here(d.common()) {
				return errGone
			}
			w.voyages.begin()
			begun = true
			return tx.SetContext(s.d, d.common().node, loop.AioContext)
		})
		if begun {
			w.voyages.end()
		}
		if err == nil {
			w.Count("moved")
		} else {
			w.Count("move refused")
		}
	})
}

// throttle changes limits, and who is under them.
func (c *controller) throttle() {
	w := c.w
	group, _ := pick(c.rng, w.groups)
	var limits blockcore.ThrottleConfig
	switch c.rng.IntN(3) {
	case 0:
		limits.IOPSTotal.Avg = 200 + c.rng.Int64N(5000)
	case 1:
		limits.BPSWrite.Avg = 100_000 + c.rng.Int64N(1_000_000)
		limits.IOPSRead.Avg = 1000
	}
	if err := group.Configure(limits); err != nil {
		w.Fail("limits %+v: %v", limits, err)
	}
	c.park(0)
	o, ok := pick(c.rng, w.owners)
	if !ok {
		return
	}
	if c.rng.IntN(3) == 0 {
		group = nil
	}
	s := c.drain(&section{name: w.newName("throttle "), owners: []*owner{o}}, drainMax)
	if s == nil {
		return
	}
	_ = c.update("throttle "+o.name, func(tx *blockcore.Tx) error {
		if !slices.Contains(w.owners, o) {
			return errGone
		}
		o.limited = true
		tx.SetThrottle(s.d, o.root, group)
		return nil
	})
	c.end(s)
}

// redirect has a filter show another disk.
func (c *controller) redirect() {
	w := c.w
	d := c.pickLayer(func(d driver) bool { _, ok := d.(*filter); return ok && isData(d) && !w.cached(d) })
	if d == nil {
		return
	}
	f := d.(*filter)
	to := c.pickLayer(func(d driver) bool { return isData(d) && !w.hidden(d) })
	if to == nil {
		return
	}
	drained, during := []*layer{&f.layer}, c.apart
	if c.rng.IntN(2) == 0 {
		drained, during = append(drained, to.common()), c.during
	}
	during("switch "+f.name+" to "+to.common().name, drained, func(tx *blockcore.Tx, s *section) error {
		if !w.here(&f.layer) || !w.here(to.common()) || !isData(to) {
			return errGone
		}
		if hasCache(w.above(f)) || w.hidden(to) {
			return errBusy
		}
		err := tx.SetChild(s.d, f.file, to.common().node)
		w.fitBitmaps()
		return err
	}, func(error) {})
}

// target has a filter write to a second disk as well, or not any more.
func (c *controller) target() {
	w := c.w
	d := c.pickLayer(func(d driver) bool { _, ok := d.(*filter); return ok })
	if d == nil {
		return
	}
	f := d.(*filter)
	spare := w.newDisk(w.newName("spare"), 64*4, nil)
	c.within("target", []*layer{&f.layer}, func(s *section) {
		var added, removed driver
		err := c.update("target of "+f.name, func(tx *blockcore.Tx) error {
			if !w.here(&f.layer) {
				return errGone
			}
			if f.target != nil {
				removed = f.target.Node().Driver().(driver)
				tx.Detach(s.d, f.target)
				return c.removeNode(tx, removed.common())
			}
			loop, _ := pick(c.rng, w.Loops)
			n, err := tx.AddNode(blockcore.NodeOptions{Name: spare.name, Context: loop.AioContext, Driver: spare})
			if err != nil {
				return err
			}
			added = spare
			w.enlist(spare)
			_, err = tx.Attach(s.d, f.node, blockcore.RoleTarget, n)
			return err
		})
		if added != nil && err != nil {
			w.delist(added)
		}
		if removed != nil && !w.here(removed.common()) {
			w.delist(removed)
		}
	})
}

func (c *controller) movable() {
	o, ok := pick(c.rng, c.w.owners)
	if !ok {
		return
	}
	_ = c.update("movable "+o.name, func(tx *blockcore.Tx) error {
		tx.SetMovable(o.root, c.rng.IntN(2) == 0)
		return nil
	})
}

// everything drains all there is, and has a node come and go meanwhile.
func (c *controller) everything() {
	w := c.w
	s := c.drain(&section{name: w.newName("everything "), all: true}, drainMax)
	if s == nil {
		return
	}
	spare := w.newDisk(w.newName("spare"), 64, nil)
	loop, _ := pick(c.rng, w.Loops)
	err := c.update("add "+spare.name, func(tx *blockcore.Tx) error {
		_, err := tx.AddNode(blockcore.NodeOptions{Name: spare.name, Context: loop.AioContext, Driver: spare})
		return err
	})
	if err == nil && spare.node.Quiesced() == 0 {
		w.Fail("node %s was made in a drain of all and is not quiesced", spare.name)
	}
	if c.rng.IntN(2) == 0 {
		c.end(s)
		s = nil
	}
	if err == nil {
		_ = c.updateWhole("remove "+spare.name, func(tx *blockcore.Tx) error { return c.removeNode(tx, &spare.layer) })
	}
	c.end(s)
}
