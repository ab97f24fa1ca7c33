package control

import (
	"context"
	"errors"
	"slices"
	"strings"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type reopenArgs struct {
	Options []qmp.Value `qmp:"options"`
}

// reopening is a node that is to have other options.
type reopening struct {
	node    *blockcore.Node
	driver  Driver
	opening *Opening
	// options are what the driver takes; nil = nothing changes for it.
	options any
	// turns: it is read-only and is not to be, or the other way round.
	turns bool
}

// childMove has an edge lead to another node.
type childMove struct {
	edge *blockcore.Edge
	to   *blockcore.Node
}

// blockdevReopen gives nodes other options, all or none of them. An option that is not there takes its default.
func (p *Plane) blockdevReopen(ctx context.Context, _ *qmp.Call, a *reopenArgs) (any, error) {
	var all []*reopening
	for _, v := range a.Options {
		if err := p.readReopening(v, nil, "", nil, &all); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	err := p.reopen(ctx, all)
	if f, is := errors.AsType[*blockcore.NodeFailure](err); is {
		return nil, f.Err
	}
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range all {
		if p.opened[r.node] != nil { // it may have been removed meanwhile
			p.opened[r.node] = &opened{driver: r.opening.Driver, options: r.opening}
		}
	}
	return nil, nil
}

// readReopening reads the options of a node that is there, and of the nodes below it that are described with it. below is the node that
// is described inside of the options of its parent.
func (p *Plane) readReopening(v qmp.Value, parent *Opening, role blockcore.Role, below *blockcore.Node, all *[]*reopening) error {
	var head struct {
		Driver string `qmp:"driver"`
	}
	rest, err := v.Take(&head)
	if err != nil {
		return err
	}
	o := &Opening{plane: p, inherits: parent, role: role, Driver: head.Driver, reopens: below, reopenings: all}
	if parent != nil {
		o.depth = parent.depth + 1
	}
	driver, known := p.options.Drivers[head.Driver]
	switch {
	case o.depth > nestingMax:
		return qmp.Errorf("nodes are nested more than %d deep", nestingMax)
	case !known:
		return qmp.NotAccepted("driver", head.Driver)
	}
	if o.rest, err = rest.Take(&o.Common); err != nil {
		return err
	}
	o.inherit()
	if err := o.findNode(); err != nil {
		return err
	}
	r := &reopening{node: o.reopens, driver: driver, opening: o}
	before, options := p.describe(r.node)
	r.turns = options.ReadOnly != o.ReadOnly
	if before != head.Driver {
		return fixed(o.prefix() + "driver")
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := o.keeps(options, driver); err != nil {
		return err
	}
	if driver.Reopen != nil {
		if r.options, err = driver.Reopen(o); err != nil {
			return err
		}
	}
	*all = append(*all, r)
	return nil
}

func fixed(option string) error { return qmp.Errorf("Cannot change the option '%s'", option) }

// prefix is what stands before the names of the options of a node that is described inside of its parent.
func (o *Opening) prefix() string {
	if o.inherits == nil {
		return ""
	}
	return o.inherits.prefix() + string(o.role) + "."
}

// findNode finds the node whose options these are.
func (o *Opening) findNode() error {
	switch {
	case o.reopens != nil:
		if o.Name != nil && *o.Name != o.reopens.Name() {
			return fixed(o.prefix() + "node-name")
		}
		return nil
	case o.Name == nil:
		return qmp.Errorf("node-name not specified")
	}
	o.reopens = o.plane.graph.Node(*o.Name)
	if o.reopens == nil {
		return qmp.Errorf("Failed to find node with node-name='%s'", *o.Name)
	}
	return nil
}

// keeps sees to it that options which cannot be changed are not.
func (o *Opening) keeps(before *Opening, driver Driver) error {
	names := driver.Fixed
	if driver.Reopen == nil {
		names = append(o.rest.Members(), before.rest.Members()...)
	}
	for _, name := range names {
		was, is := before.rest.Has(name), o.rest.Has(name)
		switch {
		case was && !is:
			return qmp.Errorf("Option '%s' cannot be reset to its default value", o.prefix()+name)
		case is != was || is && !same(o.rest.Member(name), before.rest.Member(name)):
			return fixed(o.prefix() + name)
		}
	}
	return nil
}

// same compares values of which either may come from JSON or from a command line, where a switch is "on" and a number a text.
func same(a, b qmp.Value) bool {
	var on, other bool
	if (a.Kind() == qmp.Boolean || b.Kind() == qmp.Boolean) && a.Decode(&on) == nil && b.Decode(&other) == nil {
		return on == other
	}
	return plainText(a) == plainText(b)
}

// plainText is a scalar as JSON and the command line both write it.
func plainText(v qmp.Value) string { return strings.Trim(string(v.Raw()), `"`) }

// childAgain is Child for a node that is there: another child may take the place of the one it has.
func (o *Opening) childAgain(role blockcore.Role, v qmp.Value) (*blockcore.Node, error) {
	var edge *blockcore.Edge
	for _, e := range o.reopens.Children() {
		if e.Role() == role {
			edge = e
		}
	}
	if edge == nil {
		return nil, fixed(o.prefix() + string(role))
	}
	switch v.Kind() {
	case qmp.Object:
		return edge.Node(), o.plane.readReopening(v, o, role, edge.Node(), o.reopenings)
	case qmp.String:
		var name string
		if err := v.Decode(&name); err != nil {
			return nil, err
		}
		to, err := o.plane.node(name)
		if err == nil && to != edge.Node() {
			o.moves = append(o.moves, childMove{edge, to})
		}
		return to, err
	}
	return nil, noReference(role, v)
}

// reopen does what was read.
func (p *Plane) reopen(ctx context.Context, all []*reopening) error {
	if everyLive(all) {
		for _, r := range all {
			if err := r.driver.Live(r.node.Driver(), r.options); err != nil {
				return err
			}
		}
		return nil
	}
	var nodes []*blockcore.Node
	for _, r := range all {
		nodes = append(nodes, r.node)
		for _, m := range r.opening.moves {
			nodes = append(nodes, m.edge.Node(), m.to)
		}
	}
	o := p.flushedOptions("blockdev-reopen "+all[0].node.Name(), nodes...)
	o.Brief = !slices.ContainsFunc(all, (*reopening).waits)
	return p.during(ctx, o, func(tx *blockcore.Tx, d *blockcore.Drained) error {
		for _, r := range inOrder(all) {
			if err := r.change(tx, d); err != nil {
				return err
			}
		}
		return nil
	})
}

// inOrder has what is to be read-only come first, parents before their children: an image may have something to write before. The others come
// after, children first. all has children first.
func inOrder(all []*reopening) (ordered []*reopening) {
	for _, r := range slices.Backward(all) {
		if r.opening.ReadOnly {
			ordered = append(ordered, r)
		}
	}
	for _, r := range all {
		if !r.opening.ReadOnly {
			ordered = append(ordered, r)
		}
	}
	return ordered
}

// everyLive reports whether all that changes are options which drivers take over at any moment. A drain would not do: it waits for
// requests that are held by the very options.
func everyLive(all []*reopening) bool {
	for _, r := range all {
		if r.driver.Live == nil || r.turns || len(r.opening.moves) > 0 {
			return false
		}
	}
	return true
}

// waits reports whether the change needs the loop of the node.
func (r *reopening) waits() bool { return r.options != nil || len(r.opening.moves) > 0 }

func (r *reopening) change(tx *blockcore.Tx, d *blockcore.Drained) error {
	for _, m := range r.opening.moves {
		if err := tx.Flush(m.edge.Node()); err != nil { // a flush that follows is one of the other child
			return err
		}
		if err := tx.SetChild(d, m.edge, m.to); err != nil {
			return err
		}
	}
	if err := tx.SetReadOnly(d, r.node, r.opening.ReadOnly); err != nil || r.options == nil {
		return err
	}
	return tx.Reopen(d, r.node, r.options)
}
