package sim

import (
	"errors"
	"slices"

	"nbd-dataplane/backends/qcow2"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

func isInjected(err error) bool { return errors.Is(err, errInjected) }

// addImage makes an image that clients see.
func (c *controller) addImage(v *volume) {
	w := c.w
	loop, _ := pick(c.rng, w.Loops)
	var p *opening
	for p == nil && !w.Failed() {
		var err error
		f := w.newFile(w.newName("file"), w.emptyImage(c.rng, v.sizeBytes(), false))
		p, err = c.openImage(f, loop.AioContext, w.newName("image"), someOptions(c.rng))
		c.mayFail("a new image", err)
	}
	err := c.updateWhole("add "+p.image.name, func(tx *blockcore.Tx) error {
		_, err := p.add(tx)
		return err
	})
	if err != nil {
		w.Fail("image %s: %v", p.image.name, err)
	}
	p.image.volume = v
	w.enlist(p.file)
	w.enlist(p.image)
}

// overlay has clients of an image, or of a disk, go on in a new image on top of it.
func (c *controller) overlay() {
	w := c.w
	below := c.pickLayer(func(d driver) bool { return isStore(d) && isData(d) && !w.hidden(d) })
	if below == nil || w.locked[below.common().volume] {
		return
	}
	l := below.common()
	v := l.volume
	w.locked[v] = true
	defer delete(w.locked, v)
	f := w.newFile(w.newName("file"), w.emptyImage(c.rng, v.sizeBytes(), true))
	p, err := c.openImage(f, l.node.Context(), w.newName("overlay"), someOptions(c.rng))
	if err != nil {
		c.mayFail("an overlay", err)
		return
	}
	done := false
	c.within("overlay", []*layer{l}, func(s *section) { done = c.putOver(s, l, p) })
	if !done {
		c.forget(p)
	}
}

// putOver puts an open image over a node: what was written before is on disk, and nobody writes to it any more.
func (c *controller) putOver(s *section, l *layer, p *opening) bool {
	w := c.w
	v := l.volume
	err := c.update("overlay "+p.image.name+" on "+l.name, func(tx *blockcore.Tx) error {
		if !w.here(l) || p.file.node.Context() != l.node.Context() || w.hidden(l.self.(driver)) {
			return errGone
		}
		c.attend()
		if err := tx.Flush(l.node); err != nil {
			return err
		}
		n, err := p.add(tx, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: l.node})
		if err != nil {
			return err
		}
		w.enlist(p.file)
		w.enlist(p.image)
		if err := tx.Replace(s.d, l.node, n); err != nil {
			return err
		}
		l.volume, p.image.volume = nil, v
		tx.Undo(func() { l.volume, p.image.volume = v, nil }, nil)
		return nil
	})
	if err != nil {
		w.delist(p.file)
		w.delist(p.image)
		l.volume, p.image.volume = v, nil
		return false
	}
	w.Count("overlays")
	return true
}

// powerCut looks at what would be left of an image if there were a power cut now.
func (c *controller) powerCut() {
	if d := c.pickLayer(isImage); d != nil {
		c.powerCutOf(d)
	}
}

// powerCutOf is powerCut for one image, unless somebody else has it.
func (c *controller) powerCutOf(d driver) {
	w := c.w
	l := d.common()
	v := l.volume
	if v == nil || w.locked[v] || !w.here(l) {
		return
	}
	w.locked[v] = true
	defer delete(w.locked, v)
	c.within("power cut", []*layer{l}, func(*section) {
		if w.here(l) {
			c.cutPower(d)
		}
	})
}

// cutPower compares what would be left of an image, in a section over it, with what was flushed.
func (c *controller) cutPower(d driver) {
	w := c.w
	v := d.common().volume
	rest := &remains{c: c}
	top := rest.of(d)
	if top == nil || w.Failed() {
		return
	}
	if n := top.Size(); n != v.sizeBytes() && !slices.Contains(v.maybe, int(n/simkit.CellBytes)) {
		w.Fail("after a power cut %s has %d bytes of %d", d.common().name, top.Size(), v.sizeBytes())
	}
	for cell, tag := range rest.read(top) {
		if cell >= len(v.cells) {
			break
		}
		if err := v.checkCrash(cell, tag); err != nil {
			w.Fail("after a power cut of %s: %v", d.common().name, err)
			break
		}
	}
	rest.remove()
	w.Count("power cuts")
}

// remains are copies of nodes as a power cut would leave them. They are read only, and do not fail.
type remains struct {
	c     *controller
	nodes []*blockcore.Node // each one below those that come after it
}

// of copies a node with all that is below it; nil = it failed.
func (r *remains) of(d driver) *blockcore.Node {
	w := r.c.w
	switch d := d.(type) {
	case *disk:
		left := w.newDisk(w.newName("rest"), len(d.now), nil)
		left.failing = 0
		left.copyFrom(d)
		left.crash()
		return r.add(left.name, func(tx *blockcore.Tx) (*blockcore.Node, error) {
			return tx.AddNode(blockcore.NodeOptions{Name: left.name, Context: d.node.Context(), Driver: left})
		})
	case *image:
		return r.ofImage(d)
	}
	return r.of(childOf(d)) // a filter has nothing of its own
}

func (r *remains) ofImage(d *image) *blockcore.Node {
	w := r.c.w
	var children []blockcore.ChildOptions
	if d.backing != nil {
		below := r.of(d.backing.Node().Driver().(driver))
		if below == nil {
			return nil
		}
		children = append(children, blockcore.ChildOptions{Role: blockcore.RoleBacking, Node: below})
	}
	kept := d.keptBitmaps()
	left := w.newFile(w.newName("rest"), d.file.Node().Driver().(*file).crashed())
	left.failing = 0
	p, err := r.c.openImage(left, d.node.Context(), w.newName("rest"), qcow2.Options{ReadOnly: true})
	if err != nil {
		w.Fail("after a power cut: %v", err)
		return nil
	}
	r.c.checkKept(d, kept, p.image.inner.(*qcow2.Image), false)
	r.nodes = append(r.nodes, left.node)
	return r.add(p.image.name, func(tx *blockcore.Tx) (*blockcore.Node, error) { return p.add(tx, children...) })
}

func (r *remains) add(name string, fn func(tx *blockcore.Tx) (*blockcore.Node, error)) (n *blockcore.Node) {
	err := r.c.updateWhole("add "+name, func(tx *blockcore.Tx) (err error) {
		n, err = fn(tx)
		return err
	})
	if err != nil {
		r.c.w.Fail("after a power cut %s: %v", name, err)
		return nil
	}
	r.nodes = append(r.nodes, n)
	return n
}

// read returns what the cells hold.
func (r *remains) read(n *blockcore.Node) []uint64 {
	w := r.c.w
	root, err := w.graph.NewRoot(n, blockcore.RootOptions{Name: "look at " + n.Name()})
	if err != nil {
		w.Fail("after a power cut %s: %v", n.Name(), err)
		return nil
	}
	var tags []uint64
	p := &opening{root: root}
	err = p.do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(int(n.Size()))
		defer t.Buffers().Put(p)
		if err := root.Edge().Read(t, p, 0); err != nil {
			return err
		}
		for at := 0; at < len(p); at += simkit.CellBytes {
			tag, err := simkit.Tag(p[at : at+simkit.CellBytes])
			if err != nil {
				return err
			}
			tags = append(tags, tag)
		}
		return nil
	})
	r.c.park(0)
	if err != nil {
		w.Fail("after a power cut %s cannot be read: %v", n.Name(), err)
	}
	root.Close()
	r.c.park(0)
	return tags
}

// remove takes the copies out of the graph.
func (r *remains) remove() {
	for k := len(r.nodes) - 1; k >= 0; k-- {
		n := r.nodes[k]
		err := r.c.updateWhole("remove "+n.Name(), func(tx *blockcore.Tx) error {
			return r.c.removeNode(tx, n.Driver().(driver).common())
		})
		if err != nil {
			r.c.w.Fail("what is left cannot be removed: %v", err)
		}
	}
}
