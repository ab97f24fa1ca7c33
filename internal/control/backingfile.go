package control

import (
	"context"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type backingFileArgs struct {
	Device string `qmp:"device"`
	Image  string `qmp:"image-node-name"`
	File   string `qmp:"backing-file"`
}

// changeBackingFile changes the name of the file below an image that the image has written down. What is open stays.
func (p *Plane) changeBackingFile(ctx context.Context, _ *qmp.Call, a *backingFileArgs) (any, error) {
	k, err := p.keeper(a.Device)
	if err != nil {
		return nil, err
	}
	n, err := p.node(a.Image)
	if err != nil {
		return nil, err
	}
	below := childOf(n, blockcore.RoleBacking)
	if below == nil {
		return nil, qmp.Errorf("not allowing backing file change on an image without a backing file")
	}
	if !inChain(k.top, n) {
		return nil, qmp.Errorf("'%s' and image file are not in the same chain", a.Device)
	}
	format := p.formatOf(keeperBelow(below).node)
	return nil, p.whileWritable(ctx, n, func() error {
		err := p.during(ctx, p.flushedOptions("change-backing-file "+n.Name(), n), func(tx *blockcore.Tx, d *blockcore.Drained) error {
			return tx.NameBacking(d, n, a.File, format)
		})
		if err != nil {
			return qmp.Errorf("Could not change backing file to '%s': %v", a.File, err)
		}
		return nil
	})
}

// inChain reports whether n is top or below it, in a chain of images and filters.
func inChain(top, n *blockcore.Node) bool {
	for top != n {
		next := childOf(top, blockcore.RoleBacking)
		if next == nil && top.Features().Filter && len(top.Children()) == 1 {
			next = top.Children()[0].Node()
		}
		if next == nil {
			return false
		}
		top = next
	}
	return true
}
