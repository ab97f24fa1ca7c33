package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
)

// section is a drained section that has settled and not ended.
type section struct {
	name   string
	d      *blockcore.Drained
	all    bool
	layers []*layer
	owners []*owner
}

// covers reports whether the section covers a driver: it is named, or something below it is.
func (s *section) covers(d blockcore.Driver) bool {
	l := d.(driver).common()
	if s.all || slices.Contains(s.layers, l) {
		return true
	}
	return slices.ContainsFunc(l.children(), func(e *blockcore.Edge) bool { return s.covers(e.Node().Driver()) })
}

func (s *section) coversOwner(o *owner) bool {
	return s.all || slices.Contains(s.owners, o) || s.covers(o.root.Node().Driver())
}

// coveredBy returns a section that covers a driver, or nil.
func (w *world) coveredBy(d blockcore.Driver) *section {
	for _, s := range w.sections {
		if s.covers(d) {
			return s
		}
	}
	return nil
}

func (w *world) ownerCoveredBy(o *owner) *section {
	for _, s := range w.sections {
		if s.coversOwner(o) {
			return s
		}
	}
	return nil
}

// drainMax is longer than anything in the simulation takes: a drain that has it does not fail.
const drainMax = time.Minute

// drain begins a section, or returns nil where it did not settle.
func (c *controller) drain(s *section, limit time.Duration) *section {
	w := c.w
	o := blockcore.DrainOptions{Why: s.name, All: s.all, Max: limit}
	for _, l := range s.layers {
		o.Nodes = append(o.Nodes, l.node)
	}
	for _, owner := range s.owners {
		o.Roots = append(o.Roots, owner.root)
	}
	w.Log("%s: drain %s: nodes %v roots %v all %t max %v", c.name, s.name, names(s.layers), s.owners, s.all, limit)
	d, err := w.graph.Drain(context.Background(), o)
	if err != nil {
		c.park(0)
		w.Log("%s: drain %s: %v", c.name, s.name, err)
		var gaveUp *blockcore.DrainError
		if limit >= drainMax && (errors.As(err, &gaveUp) || errors.Is(err, context.DeadlineExceeded)) {
			w.Fail("drain %s did not settle: %v", s.name, err)
		}
		w.Count("drain failed")
		return nil
	}
	s.d = d
	w.mu.Lock()
	w.sections = append(w.sections, s)
	slices.SortFunc(w.sections, func(a, b *section) int { return a.d.Begun().Compare(b.d.Begun()) })
	w.mu.Unlock()
	c.park(0)
	w.Log("%s: settled %s", c.name, s.name)
	w.Count("drain settled")
	w.checkQuiet(s)
	return s
}

// checkQuiet looks at everything that a section covers.
func (w *world) checkQuiet(s *section) {
	for _, d := range w.layers {
		l := d.common()
		if !s.covers(d) || l.node == nil {
			continue
		}
		if l.running > 0 || l.node.InFlight() > 0 && !w.attending() {
			w.Fail("section %s: node %s has %d requests in flight, %d in its driver", s.name, l.name, l.node.InFlight(), l.running)
		}
		if w.calm() && !l.still {
			w.Fail("section %s: node %s is not quiesced", s.name, l.name)
		}
		if c, ok := d.(*cache); ok && w.calm() {
			c.mustBeClean("in section " + s.name)
		}
	}
	for _, o := range w.owners {
		if s.coversOwner(o) && (o.root.InFlight() > 0 || o.own.Load() > 0 || w.calm() && !o.still) {
			w.Fail("section %s: root %s has %d requests in flight and %d jobs, quiesced %t", s.name, o.name, o.root.InFlight(), o.own.Load(), o.still)
		}
	}
	if t := s.d.Timings(); min(t.Throttle, t.Unplug, t.Quiesce, t.Settle, t.Resume) < 0 || t.Settle > drainMax {
		w.Fail("section %s: impossible timings %+v", s.name, t)
	}
}

// end ends a section, sometimes twice.
func (c *controller) end(s *section) {
	if s == nil {
		return
	}
	w := c.w
	w.checkQuiet(s)
	w.Log("%s: end %s", c.name, s.name)
	w.sections = slices.DeleteFunc(slices.Clone(w.sections), func(other *section) bool { return other == s })
	s.d.End()
	c.park(0)
	if c.rng.IntN(4) == 0 {
		s.d.End()
		c.park(0)
	}
}

func names(layers []*layer) []string {
	var list []string
	for _, l := range layers {
		list = append(list, l.name)
	}
	return list
}
