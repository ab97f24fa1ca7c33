package control

import (
	"context"
	"math/bits"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// The commands of dirty bitmaps are actions of transactions, which all of them can be.

type bitmapAddArgs struct {
	Node        string  `qmp:"node"`
	Name        string  `qmp:"name"`
	Granularity *uint32 `qmp:"granularity"`
	Persistent  bool    `qmp:"persistent,optional"`
	Disabled    bool    `qmp:"disabled,optional"`
}

type bitmapArgs struct {
	Node string `qmp:"node"`
	Name string `qmp:"name"`
}

type bitmapMergeArgs struct {
	Node    string      `qmp:"node"`
	Target  string      `qmp:"target"`
	Bitmaps []qmp.Value `qmp:"bitmaps"`
}

func (p *Plane) bitmapAdd(ctx context.Context, _ *qmp.Call, a *bitmapAddArgs) (any, error) {
	return nil, p.changeBitmaps(ctx, &bitmapAddition{*a})
}

func (p *Plane) bitmapMerge(ctx context.Context, _ *qmp.Call, a *bitmapMergeArgs) (any, error) {
	return nil, p.changeBitmaps(ctx, &bitmapMerging{*a})
}

// bitmapVerb is the command for one of the changes of one bitmap.
func (p *Plane) bitmapVerb(do bitmapChange) func(context.Context, *qmp.Call, *bitmapArgs) (any, error) {
	return func(ctx context.Context, _ *qmp.Call, a *bitmapArgs) (any, error) {
		return nil, p.changeBitmaps(ctx, &bitmapChanging{*a, do})
	}
}

// changeBitmaps does one action, while clients go on.
func (p *Plane) changeBitmaps(ctx context.Context, a action) error {
	return p.graph.Update(ctx, "bitmaps", func(tx *blockcore.Tx) error { return a.change(p, tx, nil) })
}

// bitmapActions are the actions of transactions, by the ends of their names.
func bitmapActions(name string) (action, any) {
	verb := func(do bitmapChange) (action, any) {
		a := &bitmapChanging{do: do}
		return a, &a.args
	}
	switch name {
	case "block-dirty-bitmap-add":
		a := &bitmapAddition{}
		return a, &a.args
	case "block-dirty-bitmap-merge":
		a := &bitmapMerging{}
		return a, &a.args
	case "block-dirty-bitmap-remove":
		return verb(removeBitmap)
	case "block-dirty-bitmap-clear":
		return verb(clearBitmap)
	case "block-dirty-bitmap-enable":
		return verb(enableBitmap)
	case "block-dirty-bitmap-disable":
		return verb(disableBitmap)
	}
	return nil, nil
}

// quietIf is the node of an action, if there is one: change tells if not.
func (p *Plane) quietIf(name string) ([]*blockcore.Node, error) {
	if n := p.graph.Node(name); n != nil {
		return []*blockcore.Node{n}, nil
	}
	return nil, nil
}

type bitmapAddition struct{ args bitmapAddArgs }

func (a *bitmapAddition) drained(_ context.Context, p *Plane) ([]*blockcore.Node, error) {
	return p.quietIf(a.args.Node)
}

func (a *bitmapAddition) change(p *Plane, tx *blockcore.Tx, _ *blockcore.Drained) error {
	n, err := p.either(a.args.Node)
	if err != nil {
		return err
	}
	if a.args.Name == "" {
		return qmp.Errorf("Bitmap name cannot be empty")
	}
	granularityBits := defaultGranularityBits(n)
	if g := a.args.Granularity; g != nil {
		if *g < 1<<blockcore.GranularityBitsMin || bits.OnesCount32(*g) != 1 {
			return qmp.Errorf("Granularity must be power of 2 and at least 512")
		}
		granularityBits = uint(bits.TrailingZeros32(*g))
	}
	_, err = tx.AddBitmap(n, a.args.Name, granularityBits, blockcore.BitmapState{Enabled: !a.args.Disabled, Persistent: a.args.Persistent})
	return err
}

// findBitmap finds a bitmap of a node.
func (p *Plane) findBitmap(node, name string) (*blockcore.Node, *blockcore.Bitmap, error) {
	n := p.graph.Node(node)
	if n == nil {
		return nil, nil, qmp.Errorf("Node '%s' not found", node)
	}
	b := n.Bitmaps().Find(name)
	if b == nil {
		return nil, nil, qmp.Errorf("Dirty bitmap '%s' not found", name)
	}
	return n, b, nil
}

// bitmapChange is one of the changes of one bitmap of a node.
type bitmapChange func(tx *blockcore.Tx, n *blockcore.Node, b *blockcore.Bitmap) error

type bitmapChanging struct {
	args bitmapArgs
	do   bitmapChange
}

func (a *bitmapChanging) drained(_ context.Context, p *Plane) ([]*blockcore.Node, error) {
	return p.quietIf(a.args.Node)
}

func (a *bitmapChanging) change(p *Plane, tx *blockcore.Tx, _ *blockcore.Drained) error {
	n, b, err := p.findBitmap(a.args.Node, a.args.Name)
	if err != nil {
		return err
	}
	return a.do(tx, n, b)
}

func enableBitmap(tx *blockcore.Tx, n *blockcore.Node, b *blockcore.Bitmap) error {
	return tx.EnableBitmap(n, b, true)
}

func disableBitmap(tx *blockcore.Tx, n *blockcore.Node, b *blockcore.Bitmap) error {
	return tx.EnableBitmap(n, b, false)
}

func clearBitmap(tx *blockcore.Tx, n *blockcore.Node, b *blockcore.Bitmap) error {
	return tx.ClearBitmap(n, b)
}

func removeBitmap(tx *blockcore.Tx, n *blockcore.Node, b *blockcore.Bitmap) error {
	return tx.RemoveBitmap(n, b)
}

type bitmapMerging struct{ args bitmapMergeArgs }

func (a *bitmapMerging) drained(_ context.Context, p *Plane) ([]*blockcore.Node, error) {
	return p.quietIf(a.args.Node)
}

func (a *bitmapMerging) change(p *Plane, tx *blockcore.Tx, _ *blockcore.Drained) error {
	n, b, err := p.findBitmap(a.args.Node, a.args.Target)
	if err != nil {
		return err
	}
	if err := b.Check(blockcore.BitmapChange); err != nil {
		return err
	}
	var sources []*blockcore.Bitmap
	for _, v := range a.args.Bitmaps {
		from, err := p.mergeSource(a.args.Node, v)
		if err != nil {
			return err
		}
		sources = append(sources, from)
	}
	return tx.MergeBitmap(n, b, sources...)
}

// mergeSource reads the name of a bitmap of a node, or of another one.
func (p *Plane) mergeSource(node string, v qmp.Value) (*blockcore.Bitmap, error) {
	a := bitmapArgs{Node: node}
	err := v.WrongType("BlockDirtyBitmapOrStr")
	switch v.Kind() {
	case qmp.String:
		err = v.Decode(&a.Name)
	case qmp.Object:
		err = v.Decode(&a)
	}
	if err != nil {
		return nil, err
	}
	_, b, err := p.findBitmap(a.Node, a.Name)
	return b, err
}
