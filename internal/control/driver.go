package control

import (
	"errors"
	"maps"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// Driver is one kind of node that blockdev-add makes.
type Driver struct {
	// Open reads the options that are left to the driver and opens it. Children are named by Opening.Child.
	Open func(o *Opening) (blockcore.Driver, error)
	// Reopen reads the complete options of a node again and returns what the driver takes as such, or nil if nothing changes for it.
	// Without Reopen all of the options are fixed.
	Reopen func(o *Opening) (any, error)
	// Fixed are options that cannot be changed.
	Fixed []string
	// Live has a driver take over what Reopen has returned at any moment, undrained; may be nil.
	Live func(d blockcore.Driver, options any) error
}

// Common are the options of every node.
type Common struct {
	Name         *string      `qmp:"node-name"`
	Discard      string       `qmp:"discard,optional,enum=ignore|off|unmap|on"`
	Cache        CacheOptions `qmp:"cache,optional"`
	ReadOnly     bool         `qmp:"read-only,optional"`
	AutoReadOnly bool         `qmp:"auto-read-only,optional"`
	ForceShare   bool         `qmp:"force-share,optional"`
	DetectZeroes string       `qmp:"detect-zeroes,optional,enum=off|on|unmap"`
}

// CacheOptions are QEMU's cache.direct and cache.no-flush.
type CacheOptions struct {
	Direct  bool `qmp:"direct,optional"`
	NoFlush bool `qmp:"no-flush,optional"`
}

// Opening is a node in the making.
type Opening struct {
	Common
	// Driver is the name of the driver.
	Driver string
	// NodeName is the name that was asked for; "" = none.
	NodeName string

	plane    *Plane
	rest     qmp.Value
	inherits *Opening              // whose child it is; nil = nobody's
	role     blockcore.Role        // as which
	context  *blockcore.AioContext // of the node; nil = that of its children, or the main one
	children []child
	holds    []*blockcore.Root // on children that were looked into
	depth    int
	images   bool // the driver is an image format, which decides about its files itself
	// saysReadOnly: the options say themselves that the node is read-only; it does not come from the parent.
	saysReadOnly bool

	reopens    *blockcore.Node // whose options these are to be; nil = a node is to be made
	reopenings *[]*reopening   // where nodes go that are described inside
	moves      []childMove     // children to be exchanged
}

// child is what an Opening stands on: a node that is there, or one that is made with it.
type child struct {
	role blockcore.Role
	node *blockcore.Node
	made *madeNode
	// added are the nodes that are in the graph already, where made is; nil = they are not yet.
	added map[*blockcore.Node]*madeNode
}

// madeNode is a driver that is open and not in the graph yet.
type madeNode struct {
	opening *Opening
	driver  blockcore.Driver
}

// Decode reads the driver's own options, strictly.
func (o *Opening) Decode(dst any) error { return Malformed(o.rest.Decode(dst)) }

// Group finds the throttle group of that name.
func (o *Opening) Group(name string) (*blockcore.ThrottleGroup, error) {
	return o.plane.throttleGroup(name)
}

// nestingMax bounds how deep nodes are described in one another.
const nestingMax = 64

// Child reads a reference to a node, or the options of one to be made, and returns its size; -1 = that is not known yet.
func (o *Opening) Child(role blockcore.Role, v qmp.Value) (sizeBytes int64, err error) {
	if o.reopens != nil {
		n, err := o.childAgain(role, v)
		if err != nil {
			return 0, err
		}
		return n.Size(), nil
	}
	switch v.Kind() {
	case qmp.String:
		var name string
		if err := v.Decode(&name); err != nil {
			return 0, err
		}
		n, err := o.plane.either(name)
		if err != nil {
			return 0, err
		}
		o.children = append(o.children, child{role: role, node: n})
		return n.Size(), nil
	case qmp.Object:
		made, err := o.plane.open(v, o, role)
		if err != nil {
			return 0, err
		}
		o.children = append(o.children, child{role: role, made: made})
		return made.size(), nil
	}
	return 0, noReference(role, v)
}

// ChildDriver returns what a child that Child has read is made of, and what its driver is called; nil = there is none.
func (o *Opening) ChildDriver(role blockcore.Role) (name string, d blockcore.Driver) {
	for _, c := range o.children {
		switch {
		case c.role != role:
		case c.node != nil:
			name, _ = o.plane.describe(c.node)
			return name, c.node.Driver()
		default:
			return c.made.opening.Driver, c.made.driver
		}
	}
	return "", nil
}

// size is -1 where it is that of a child, which the driver has not got yet.
func (m *madeNode) size() int64 {
	if len(m.opening.children) > 0 {
		return -1
	}
	return m.driver.Size()
}

// open reads the options of a node and opens it with its children. What it has opened when it fails is closed.
func (p *Plane) open(v qmp.Value, parent *Opening, role blockcore.Role) (*madeNode, error) {
	o := &Opening{plane: p, inherits: parent, role: role}
	if parent != nil {
		o.depth, o.context = parent.depth+1, parent.context
	}
	return p.openAs(v, o)
}

// openAs is open with what is known before the options are read.
func (p *Plane) openAs(v qmp.Value, o *Opening) (*madeNode, error) {
	if o.depth > nestingMax {
		return nil, qmp.Errorf("nodes are nested more than %d deep", nestingMax)
	}
	var head struct {
		Driver string `qmp:"driver"`
	}
	rest, err := v.Take(&head)
	if err != nil {
		return nil, Malformed(err)
	}
	driver, known := p.options.Drivers[head.Driver]
	if !known {
		return nil, Malformed(qmp.NotAccepted("driver", head.Driver))
	}
	if o.rest, err = rest.Take(&o.Common); err != nil {
		return nil, Malformed(err)
	}
	o.Driver = head.Driver
	if o.inherits == nil {
		if err := o.checkNames(v); err != nil {
			return nil, err
		}
	}
	o.inherit()
	if err := o.check(); err != nil {
		return nil, err
	}
	d, err := driver.Open(o)
	if err != nil {
		return nil, errors.Join(err, p.closeChildren(o))
	}
	return &madeNode{opening: o, driver: d}, nil
}

// check looks at what is common to all drivers.
func (o *Opening) check() error {
	if o.DetectZeroes == "unmap" && o.Discard != "unmap" && o.Discard != "on" {
		return qmp.Errorf("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
	}
	if o.ForceShare && !o.ReadOnly {
		return qmp.Errorf("force-share=on can only be used with read-only images")
	}
	if o.Name == nil {
		return nil
	}
	o.NodeName = *o.Name
	if o.reopens != nil {
		return checkName(o.NodeName)
	}
	return o.plane.checkNewName(o.NodeName)
}

// inherit takes over from the parent what QEMU lets a child inherit.
func (o *Opening) inherit() {
	o.saysReadOnly = o.ReadOnly
	if o.inherits == nil {
		return
	}
	o.ReadOnly = o.ReadOnly || o.inherits.ReadOnly
	o.ForceShare = o.ForceShare || o.inherits.ForceShare
	o.AutoReadOnly = o.AutoReadOnly || o.inherits.AutoReadOnly
	o.Cache.Direct = o.Cache.Direct || o.inherits.Cache.Direct
	o.Cache.NoFlush = o.Cache.NoFlush || o.inherits.Cache.NoFlush
	if o.Discard == "" {
		o.Discard = o.inherits.Discard
	}
	switch {
	case o.role == blockcore.RoleBacking:
		o.ReadOnly = true
	case o.role != "" && o.inherits.images && o.Discard == "":
		o.Discard = "unmap" // the image knows itself what it hands down
	}
}

// close closes what was opened and did not get into the graph.
func (m *madeNode) close(p *Plane) error {
	loop := p.options.Main
	if m.opening.context != nil {
		loop = m.opening.context
	}
	return errors.Join(loop.Do(m.driver.Close), p.closeChildren(m.opening))
}

func (p *Plane) closeChildren(o *Opening) error {
	for _, r := range o.holds {
		r.Close()
	}
	o.holds = nil
	var errs []error
	for _, c := range o.children {
		switch {
		case c.added != nil:
			errs = append(errs, p.removeAdded(c.node))
		case c.made != nil:
			errs = append(errs, c.made.close(p))
		}
	}
	return errors.Join(errs...)
}

// add puts m and its children into the graph.
func (m *madeNode) add(tx *blockcore.Tx, implicit bool, added map[*blockcore.Node]*madeNode) (*blockcore.Node, error) {
	options := blockcore.NodeOptions{Name: m.opening.NodeName, Driver: m.driver, Implicit: implicit, ReadOnly: m.opening.ReadOnly}
	if len(m.opening.children) == 0 {
		options.Context = m.opening.context
	}
	for _, r := range m.opening.holds {
		tx.CloseRoot(r)
	}
	for _, c := range m.opening.children {
		n := c.node
		maps.Copy(added, c.added)
		if n == nil {
			var err error
			if n, err = c.made.add(tx, true, added); err != nil {
				return nil, err
			}
		}
		options.Children = append(options.Children, blockcore.ChildOptions{Role: c.role, Node: n})
	}
	n, err := tx.AddNode(options)
	if err != nil {
		return nil, err
	}
	added[n] = m
	return n, nil
}
