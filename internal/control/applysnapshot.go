package control

import (
	"context"
	"slices"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// applyInternalSnapshot makes a disk what it was at a snapshot, when nobody uses it. Exports may be there, without clients.
func (p *Plane) applyInternalSnapshot(ctx context.Context, _ *qmp.Call, a *oldSnapshotArgs) (any, error) {
	p.awaitParting(ctx, a.Device)
	return p.old(ctx, "apply a snapshot of", a, func(tx *blockcore.Tx, d *blockcore.Drained, k keeper, s *blockcore.Snapshot) error {
		if err := p.unused(k, s.DiskBytes != k.node.Size()); err != nil {
			return err
		}
		if err := tx.ApplySnapshot(d, k.node, s.ID); err != nil {
			return qmp.Errorf("Failed to apply snapshot '%s' on device '%s': %v", s.Name, a.Device, err)
		}
		return nil
	})
}

// unused refuses a disk whose contents somebody relies on.
func (p *Plane) unused(k keeper, resized bool) error {
	nodes := k.nodes()
	for _, n := range nodes {
		for _, e := range n.Parents() {
			above, owner := e.User()
			if above != nil && slices.Contains(nodes, above) {
				continue
			}
			if err := p.mayChangeBelow(n, e, above, owner, resized); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayChangeBelow refuses one user of a disk: all but an export without clients.
func (p *Plane) mayChangeBelow(n *blockcore.Node, e *blockcore.Edge, above *blockcore.Node, owner *blockcore.Root, resized bool) error {
	if above != nil {
		return qmp.Errorf("Node '%s' is used by node '%s'; a snapshot can only be applied to a disk that nothing uses", n.Name(), above.Name())
	}
	x := p.exportOf(owner)
	switch {
	case x == nil:
		return qmp.Errorf("Node '%s' is used by '%s'; a snapshot can only be applied to a disk that nothing uses", n.Name(), owner.Name())
	case x.nbd.Clients() > 0:
		return inUse("Export '%s' is in use by clients; a snapshot can only be applied when they are disconnected", x.id)
	case resized && e.Shared()&blockcore.PermResize == 0:
		return qmp.Errorf("Export '%s' keeps node '%s' from being resized, and the snapshot has another size", x.id, n.Name())
	}
	return nil
}

// exportOf returns the export whose handle an owner is, or nil.
func (p *Plane) exportOf(owner *blockcore.Root) *export {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.exports {
		if e.nbd.Root() == owner {
			return e
		}
	}
	return nil
}

// partingMax is how long clients are waited for that have just said goodbye: theirs may be the last words that were not read yet.
const (
	partingMax  = 200 * time.Millisecond
	partingStep = 10 * time.Millisecond
)

// awaitParting waits a moment until nobody uses a disk. Who uses it then is told of later.
func (p *Plane) awaitParting(ctx context.Context, device string) {
	k, err := p.keeper(device)
	if err != nil {
		return
	}
	tick := time.NewTicker(partingStep)
	defer tick.Stop()
	for until := time.Now().Add(partingMax); p.unused(k, false) != nil && time.Now().Before(until); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
