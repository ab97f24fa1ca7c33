package control

import (
	"context"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// A driver of images has to look into its file before it is open: for the names of other files, for its own size. So its file is put into the graph before
// the image is opened, and is read through an edge of its own:
//
//	OpenImage     the driver says what it is
//	Node          the file is in the graph, implicit if it was described with the image
//	Examine       a Root on it; nobody else may change it from now on
//	Child, ...    the backing image, whose name was found inside
//	madeNode.add  in one change: the Root goes, the image's edge comes

// OpenImage says that the driver is an image format. It comes before its children.
func (o *Opening) OpenImage() { o.images = true }

// HoldsImage reports whether the node is to be the file of an image.
func (o *Opening) HoldsImage() bool {
	return o.inherits != nil && o.inherits.images && o.role == blockcore.RoleFile
}

// Node is Child for a driver that has to look into the child: it is in the graph when Node returns.
func (o *Opening) Node(role blockcore.Role, v qmp.Value) (*blockcore.Node, error) {
	if o.reopens != nil {
		return o.childAgain(role, v)
	}
	if _, err := o.Child(role, v); err != nil {
		return nil, err
	}
	c := &o.children[len(o.children)-1]
	if c.node != nil {
		return c.node, nil
	}
	added := map[*blockcore.Node]*madeNode{}
	err := o.plane.graph.Update(context.Background(), "open "+string(role), func(tx *blockcore.Tx) (err error) {
		c.node, err = c.made.add(tx, true, added)
		return err
	})
	if err != nil {
		c.node = nil
		return nil, err
	}
	c.added = added
	return c.node, nil
}

// Examine runs fn on the loop of a child, with an edge by which it may be read, and changed if the image is to be written. Nobody else may change the child
// until the image is in the graph.
func (o *Opening) Examine(n *blockcore.Node, fn func(*blockcore.Task, *blockcore.Edge) error) error {
	options := blockcore.RootOptions{Name: "opening", Unshared: blockcore.PermWrite | blockcore.PermResize}
	if !o.ReadOnly {
		options.Permissions = blockcore.PermWrite | blockcore.PermResize
	}
	r, err := o.plane.graph.NewRoot(n, options)
	if err != nil {
		return err
	}
	o.holds = append(o.holds, r)
	return r.Context().Do(func(t *blockcore.Task) error {
		k := blockcore.Ticket{Op: "open"}
		if !r.Begin(t, &k) {
			return blockcore.ErrContextClosed
		}
		defer r.End(t, &k)
		return fn(t, r.Edge())
	})
}

// Filename is the name of the file that a child shows; "" = it shows none.
func (o *Opening) Filename(n *blockcore.Node) string {
	for ; n != nil; n = fileOf(n) {
		if v := o.optionsOf(n).Member("filename"); v.Kind() == qmp.String {
			var name string
			_ = v.Decode(&name)
			return name
		}
		if f, ok := n.Driver().(filenamer); ok {
			return f.Path()
		}
	}
	return ""
}

func fileOf(n *blockcore.Node) *blockcore.Node {
	for _, e := range n.Children() {
		if e.Role() == blockcore.RoleFile {
			return e.Node()
		}
	}
	return nil
}

// optionsOf returns the options by which a node was made.
func (o *Opening) optionsOf(n *blockcore.Node) qmp.Value {
	for _, c := range o.children {
		if m := c.added[n]; m != nil {
			return m.opening.rest
		}
	}
	o.plane.mu.Lock()
	defer o.plane.mu.Unlock()
	if known := o.plane.opened[n]; known != nil && known.options != nil {
		return known.options.rest
	}
	return qmp.Value{}
}

// Reopens returns the node whose options are read again, nil = a node is to be made.
func (o *Opening) Reopens() *blockcore.Node { return o.reopens }

// removeAdded takes a child away that was put into the graph for an image which did not come to be.
func (p *Plane) removeAdded(n *blockcore.Node) error {
	return p.graph.Update(context.Background(), "close "+n.Name(), func(tx *blockcore.Tx) error { return tx.RemoveNode(n) })
}
