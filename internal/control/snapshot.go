package control

import (
	"context"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type snapshotArgs struct {
	Node    string `qmp:"node"`
	Overlay string `qmp:"overlay"`
}

// blockdevSnapshot puts an overlay above a node: whoever uses the node writes to the overlay from now on. The overlay comes to the event loop of the
// node, whose users stay where they are.
func (p *Plane) blockdevSnapshot(ctx context.Context, _ *qmp.Call, a *snapshotArgs) (any, error) {
	return nil, p.transact(ctx, []action{&snapshotAction{args: *a}})
}

type snapshotAction struct {
	args        snapshotArgs
	node, above *blockcore.Node
}

func (s *snapshotAction) drained(_ context.Context, p *Plane) (_ []*blockcore.Node, err error) {
	if s.node, err = p.either(s.args.Node); err != nil {
		return nil, err
	}
	if err = busy(s.node); err != nil {
		return nil, err
	}
	if s.above, err = p.either(s.args.Overlay); err != nil {
		return nil, err
	}
	return []*blockcore.Node{s.node, s.above}, nil
}

func (s *snapshotAction) change(p *Plane, tx *blockcore.Tx, d *blockcore.Drained) error {
	if err := busy(s.node); err != nil {
		return err
	}
	switch {
	case len(s.above.Parents()) > 0:
		return qmp.Errorf("The overlay is already in use")
	case s.above.Features().Filter:
		return qmp.Errorf("Filters cannot be used as overlays")
	case hasRole(s.above, blockcore.RoleBacking):
		return qmp.Errorf("The overlay already has a backing image")
	case !s.above.Features().Backing:
		return qmp.Errorf("The overlay does not support backing images")
	}
	if err := tx.Bring(s.above, s.node.Context()); err != nil {
		return err
	}
	if err := tx.Flush(s.node); err != nil {
		return err
	}
	if _, err := tx.Attach(d, s.above, blockcore.RoleBacking, s.node); err != nil {
		return err
	}
	return tx.Replace(d, s.node, s.above)
}

// settle makes the node read-only, so that others may open its image as the one below theirs. Clients go on meanwhile, but for the moment in which
// that is done; what is not written of the image is on disk already. If it cannot be done the node stays as it is, as in QEMU.
func (s *snapshotAction) settle(ctx context.Context, p *Plane) {
	if driver, _ := p.describe(s.node); driver == "copy-on-read" || !s.node.Writable() {
		return // the one writes when it is read
	}
	_ = p.setAccess(ctx, s.node, true)
}

// busy refuses to do with the image below another one what QEMU does not: an overlay in between would be one of the other image too. Of several the one is
// named that came last.
func busy(n *blockcore.Node) error {
	for _, e := range slices.Backward(n.Parents()) {
		if above, _ := e.User(); above != nil && e.Role() == blockcore.RoleBacking {
			return inUse("Node '%s' is busy: node is used as backing hd of '%s'", n.Name(), above.Name())
		}
	}
	return nil
}

func hasRole(n *blockcore.Node, role blockcore.Role) bool {
	for _, e := range n.Children() {
		if e.Role() == role {
			return true
		}
	}
	return false
}
