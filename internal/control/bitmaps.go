package control

import (
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// bitmapInfo is what query-named-block-nodes tells of a bitmap.
type bitmapInfo struct {
	Name         string `json:"name"`
	Recording    bool   `json:"recording"`
	Persistent   bool   `json:"persistent"`
	Inconsistent bool   `json:"inconsistent,omitempty"`
	Busy         bool   `json:"busy"`
	Count        int64  `json:"count"`
	Granularity  int64  `json:"granularity"`
}

// bitmapsOf describes the bitmaps of a node, the newest first, as QEMU does.
func bitmapsOf(n *blockcore.Node) (list []bitmapInfo) {
	for _, b := range n.Bitmaps().All() {
		i := b.Info()
		list = append(list, bitmapInfo{
			Name: i.Name, Recording: i.Enabled && !i.Inconsistent, Persistent: i.Persistent, Inconsistent: i.Inconsistent, Busy: i.Busy,
			Count: i.MarkedBytes, Granularity: 1 << i.GranularityBits,
		})
	}
	return list
}

// exportBitmaps finds the bitmaps of an export of n.
func (p *Plane) exportBitmaps(n *blockcore.Node, a *exportOptions) (all []*blockcore.Bitmap, err error) {
	for _, v := range a.Bitmaps {
		of, b, err := p.exportBitmap(n, v)
		if err != nil {
			return nil, err
		}
		if err := mayExport(of, b, a.Writable); err != nil {
			return nil, err
		}
		if !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	return all, nil
}

// mayExport refuses to export a bitmap of a node, in QEMU's words.
func mayExport(of *blockcore.Node, b *blockcore.Bitmap, writable bool) error {
	if err := b.Check(blockcore.BitmapRead); err != nil {
		return err
	}
	if !writable && of.Writable() && b.Info().Enabled {
		return qmp.Errorf("Enabled bitmap '%s' incompatible with readonly export", b.Name())
	}
	return nil
}

// ExportBitmaps finds the bitmaps of an export of n, for the command line.
func ExportBitmaps(n *blockcore.Node, names []string, writable bool) (all []*blockcore.Bitmap, err error) {
	for _, name := range names {
		of, b, err := shownBitmap(n, name)
		if err == nil {
			err = mayExport(of, b, writable)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func (p *Plane) exportBitmap(n *blockcore.Node, v qmp.Value) (*blockcore.Node, *blockcore.Bitmap, error) {
	if v.Kind() == qmp.Object {
		var a bitmapArgs
		if err := v.Decode(&a); err != nil {
			return nil, nil, err
		}
		return p.findBitmap(a.Node, a.Name)
	}
	var name string
	if err := v.Decode(&name); err != nil {
		return nil, nil, err
	}
	return shownBitmap(n, name)
}

// shownBitmap looks for a bitmap in n and in what it shows of the images below it.
func shownBitmap(n *blockcore.Node, name string) (*blockcore.Node, *blockcore.Bitmap, error) {
	for ; n != nil; n = shown(n) {
		if b := n.Bitmaps().Find(name); b != nil {
			return n, b, nil
		}
	}
	return nil, nil, qmp.Errorf("Bitmap '%s' is not found", name)
}

// shown is the node that n shows where it has nothing itself.
func shown(n *blockcore.Node) *blockcore.Node {
	if n.Features().Filter {
		return childOf(n, blockcore.RoleFile)
	}
	return childOf(n, blockcore.RoleBacking)
}
