package blocktest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"nbd-dataplane/blockcore"
)

// stopLoop is: stop LOOP.
func (s *stage) stopLoop(l line) {
	c := s.loop(l.operands[0])
	c.Close()
	s.stopped[c] = true
}

// addNode is: node NAME [ROLE=CHILD...] [on=LOOP] [size=BYTES] [exclusive [select=ROLE]|lax] [park] [prompt] [work] [main-only] [implicit].
func (s *stage) addNode(l line) {
	name := l.operands[0]
	o := LayerOptions{
		Name: name, Log: s.log, Exclusive: l.has("exclusive"), Lax: l.has("lax"), Park: l.has("park"), Prompt: l.has("prompt"), Work: l.has("work"),
	}
	o.Features.MainOnly = l.has("main-only")
	o.SizeBytes, _ = strconv.ParseInt(l.options["size"], 0, 64)
	d := NewLayer(o)
	d.Select(blockcore.Role(l.options["select"]))
	n := blockcore.NodeOptions{Name: name, Driver: d, Implicit: l.has("implicit")}
	if on := l.options["on"]; on != "" {
		n.Context = s.loop(on)
	}
	for _, role := range []blockcore.Role{blockcore.RoleFile, blockcore.RoleBacking, blockcore.RoleTarget} {
		if child := l.options[string(role)]; child != "" {
			n.Children = append(n.Children, blockcore.ChildOptions{Role: role, Node: s.node(child)})
		}
	}
	before := s.layers[name]
	s.layers[name] = d
	if _, err := s.graph.AddNode(n); err != nil {
		delete(s.layers, name)
		if before != nil {
			s.layers[name] = before
		}
		s.sayError("node", err)
	}
}

// addRoot is: root NAME NODE [writable] [unshare=write,resize] [mover|movable].
func (s *stage) addRoot(l line) {
	o := blockcore.RootOptions{Name: l.operands[0], Writable: l.has("writable"), Movable: l.has("movable")}
	who := owner{name: o.Name, log: s.log}
	o.Owner = &who
	if l.has("mover") {
		o.Owner = &mover{who}
	}
	o.Unshared = l.unshared()
	r, err := s.graph.NewRoot(s.node(l.operands[1]), o)
	if err == nil {
		s.roots[o.Name] = r
	}
	s.sayError("root", err)
}

// ask is: read|write|flush ROOT as NAME.
func (s *stage) ask(op string, l line) {
	s.requests.Add(1)
	a := &asker{stage: s, root: s.root(l.operands[0]), name: l.as, op: op}
	a.begin()
}

// later is: later NODE run|postpone|cancel after=DURATION.
func (s *stage) later(l line) {
	policy := map[string]blockcore.ChorePolicy{
		"run": blockcore.ChoreRun, "postpone": blockcore.ChorePostpone, "cancel": blockcore.ChoreCancel,
	}[l.operands[1]]
	d, err := time.ParseDuration(l.options["after"])
	s.sayError("later", err)
	n := s.node(l.operands[0])
	done := make(chan struct{})
	n.Context().Post(func() {
		s.layers[l.operands[0]].Later(policy, d)
		close(done)
	})
	<-done
}

// drain is: drain ALL|NODE...|root=ROOT as NAME [max=DURATION] [&].
func (s *stage) drain(l line) {
	o := blockcore.DrainOptions{Why: l.as}
	for _, name := range l.operands {
		if name == "ALL" {
			o.All = true
			continue
		}
		o.Nodes = append(o.Nodes, s.node(name))
	}
	if name := l.options["root"]; name != "" {
		o.Roots = append(o.Roots, s.root(name))
	}
	o.Max, _ = time.ParseDuration(l.options["max"])
	sec := &section{done: make(chan struct{})}
	s.sections[l.as] = sec
	go func() {
		sec.drained, sec.err = s.graph.Drain(context.Background(), o)
		close(sec.done)
	}()
	if l.behind {
		s.begun(l.as, sec.done)
		return
	}
	s.sayDrained(l.as)
}

func (s *stage) sayDrained(name string) {
	if s.covering(name) == nil {
		s.say("%s: %v", name, s.sections[name].err)
		return
	}
	s.log.Add("%s: quiet", name)
}

// attach is: attach PARENT ROLE CHILD [under SECTION].
func (s *stage) attach(l line) {
	parent := s.node(l.operands[0])
	s.update("attach", l.under, []*blockcore.Node{parent}, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		_, err := tx.Attach(d, parent, blockcore.Role(l.operands[1]), s.node(l.operands[2]))
		return err
	})
}

// detach is: detach PARENT ROLE... [under SECTION].
func (s *stage) detach(l line) {
	parent := s.node(l.operands[0])
	s.update("detach", l.under, []*blockcore.Node{parent}, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		for _, e := range parent.Children() {
			if slices.Contains(l.operands[1:], string(e.Role())) {
				tx.Detach(d, e)
			}
		}
		return nil
	})
}

// replace is: replace FROM TO [under SECTION].
func (s *stage) replace(l line) {
	from, to := s.node(l.operands[0]), s.node(l.operands[1])
	s.update("replace", l.under, []*blockcore.Node{from}, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		return tx.Replace(d, from, to)
	})
}

// appendNode is: append OVERLAY BASE [ROLE] [under SECTION]. Whoever used BASE uses OVERLAY afterwards, and that uses BASE.
func (s *stage) appendNode(l line) {
	overlay, base, role := s.node(l.operands[0]), s.node(l.operands[1]), blockcore.RoleBacking
	if len(l.operands) > 2 {
		role = blockcore.Role(l.operands[2])
	}
	s.update("append", l.under, []*blockcore.Node{overlay, base}, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		if _, err := tx.Attach(d, overlay, role, base); err != nil {
			return err
		}
		return tx.Replace(d, base, overlay)
	})
}

// move is: move NODE LOOP.
func (s *stage) move(l line) {
	s.sayError("move", s.graph.Move(context.Background(), s.node(l.operands[0]), s.loop(l.operands[1])))
}

// movable is: movable ROOT.
func (s *stage) movable(l line) {
	s.update("movable", "", nil, func(tx *blockcore.Tx, _ *blockcore.Drained) error {
		tx.SetMovable(s.root(l.operands[0]), true)
		return nil
	})
}

// resize is: resize NODE BYTES [under SECTION].
func (s *stage) resize(l line) {
	n := s.node(l.operands[0])
	size, err := strconv.ParseInt(l.operands[1], 0, 64)
	s.sayError("resize", err)
	s.update("resize", l.under, []*blockcore.Node{n}, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		return tx.Resize(d, n, size)
	})
}

// selectChild is: select NODE ROLE.
func (s *stage) selectChild(l line) {
	s.layers[l.operands[0]].Select(blockcore.Role(l.operands[1]))
	s.update("select", "", nil, func(*blockcore.Tx, *blockcore.Drained) error { return nil })
}

// counts says for each node how many sections cover it, how often its driver is quiesced and what is in flight, and the
// same for the roots.
func (s *stage) counts(line) {
	for _, n := range s.graph.Nodes() {
		s.say("%s qc=%d drv=%d io=%d", n.Name(), n.Quiesced(), s.layers[n.Name()].Still(), n.InFlight())
	}
	for _, r := range s.sortedRoots() {
		s.say("%s qc=%d io=%d", r.Name(), r.Quiesced(), r.InFlight())
	}
}

func (s *stage) sortedRoots() []*blockcore.Root {
	roots := s.graph.Roots()
	slices.SortFunc(roots, func(a, b *blockcore.Root) int { return strings.Compare(a.Name(), b.Name()) })
	return roots
}

// drawGraph says who uses whom, with the permissions taken and shared.
func (s *stage) drawGraph(line) {
	draw := func(parent string, e *blockcore.Edge) {
		s.say("%s -%s-> %s takes (%v) shares (%v)", parent, e.Name(), e.Node().Name(), e.Permissions(), e.Shared())
	}
	for _, r := range s.sortedRoots() {
		draw(r.Name(), r.Edge())
	}
	for _, n := range s.graph.Nodes() {
		for _, e := range n.Children() {
			draw(n.Name(), e)
		}
		if len(n.Children())+len(n.Parents()) == 0 {
			s.say("%s alone", n.Name())
		}
	}
}

// where says on which loops everything is.
func (s *stage) where(line) {
	at := map[string][]string{}
	for _, n := range s.graph.Nodes() {
		at[n.Context().Name()] = append(at[n.Context().Name()], n.Name())
	}
	for _, r := range s.sortedRoots() {
		at[r.Context().Name()] = append(at[r.Context().Name()], r.Name())
	}
	for _, c := range s.loops {
		if len(at[c.Name()]) > 0 {
			s.say("%s: %s", c.Name(), strings.Join(at[c.Name()], " "))
		}
	}
}

// listRequests says what is in flight and held.
func (s *stage) listRequests(line) {
	var all []string
	for _, q := range s.graph.Requests() {
		state := "in node " + q.Node
		if q.Held {
			state = "held"
		}
		all = append(all, fmt.Sprintf("%s: %s %s", q.Client, q.Op, state))
	}
	slices.Sort(all)
	for _, text := range all {
		s.say("%s", text)
	}
}

// unshared is the option unshare=write,resize.
func (l line) unshared() (p blockcore.Permissions) {
	for _, word := range strings.Split(l.options["unshare"], ",") {
		switch word {
		case "write":
			p |= blockcore.PermWrite
		case "resize":
			p |= blockcore.PermResize
		}
	}
	return p
}
