package sim

import (
	"context"
	"errors"

	"nbd-dataplane/blockcore"
)

// during makes a change in a section of its own, sometimes by Graph.Change: then a loop may make it. It concerns layers, and what shares requests with
// them; fn does not park. after is called with its outcome, before anybody else goes on.
func (c *controller) during(what string, layers []*layer, fn func(tx *blockcore.Tx, s *section) error, after func(error)) {
	if c.rng.IntN(2) == 0 {
		after(c.change(what, layers, fn))
		return
	}
	c.apart(what, layers, fn, after)
}

// apart makes a change by Graph.Update in a section of its own.
func (c *controller) apart(what string, layers []*layer, fn func(tx *blockcore.Tx, s *section) error, after func(error)) {
	c.within(what, layers, func(s *section) {
		after(c.update(what, func(tx *blockcore.Tx) error { return fn(tx, s) }))
	})
}

// change is Graph.Change. What it covers is looked at while it is changed, as in a section that is held.
func (c *controller) change(what string, layers []*layer, fn func(tx *blockcore.Tx, s *section) error) error {
	w := c.w
	s := &section{name: w.newName(what + " "), layers: layers}
	o := blockcore.DrainOptions{Why: s.name, Max: drainMax, Brief: c.rng.IntN(4) > 0}
	for _, l := range layers {
		o.Nodes = append(o.Nodes, l.node)
	}
	if c.rng.IntN(4) == 0 {
		o.Flush = o.Nodes[:1]
		c.attend()
	}
	w.Log("%s: change %s: nodes %v brief %t flush %d", c.name, s.name, names(layers), o.Brief, len(o.Flush))
	w.changes(+1)
	w.wakers[s.name] = c
	err := w.graph.Change(context.Background(), o, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		s.d = d
		w.checkQuiet(s)
		err := fn(tx, s)
		if err == nil && c.rng.IntN(6) == 0 {
			err = errHalfway
		}
		w.checkQuiet(s)
		return err
	})
	delete(w.wakers, s.name)
	w.attended -= c.attends
	c.attends = 0
	w.changes(-1)
	w.Log("%s: change %s: %v", c.name, s.name, err)
	if gaveUp := new(blockcore.DrainError); errors.As(err, &gaveUp) || errors.Is(err, context.DeadlineExceeded) {
		w.Fail("change %s did not settle: %v", s.name, err)
	}
	if err != nil {
		w.Count("change failed")
	} else {
		w.Count("changed by itself")
	}
	return err
}

// wake has the scheduler decide when a change that has waited goes on.
func (w *world) wake(why string) { w.wakers[why].park(0) }

// changes counts changes that loops may make. A loop looks at counts then, and takes the graph's lock: nobody is preempted who holds it.
func (w *world) changes(n int) {
	w.updating += n
	w.updated = w.Tick()
	w.locks(n)
}

// locks counts what loops may do that takes the graph's lock.
func (w *world) locks(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.brief += n
}
