package blockcore

import "fmt"

// Changes of the bitmaps of a node. No section is asked for: writes that are under way are marked, or not, as if they had come after the change or before
// it. What is stored of a bitmap is not to be trusted from a change of it on, whether that stands or not.

// AddBitmap gives n a bitmap in which nothing is marked.
func (tx *Tx) AddBitmap(n *Node, name string, granularityBits uint, state BitmapState) (*Bitmap, error) {
	if state.Persistent && name != "" {
		if err := n.mayKeep(name, granularityBits); err != nil {
			return nil, err
		}
	}
	b, err := n.Bitmaps().Add(name, granularityBits, state)
	if err != nil {
		return nil, err
	}
	tx.Undo(b.Forget, nil)
	return b, nil
}

// mayKeep refuses a bitmap that n cannot keep.
func (n *Node) mayKeep(name string, granularityBits uint) error {
	k, ok := n.driver.(BitmapKeeper)
	if !ok {
		return fmt.Errorf("Can't store persistent bitmaps to %s: Operation not supported", n.name)
	}
	err := n.graph.do(n, func(t *Task) error { return k.MayKeep(t, name, granularityBits) })
	if err != nil {
		return fmt.Errorf("Can't make bitmap '%s' persistent in '%s': %w", name, n.name, err)
	}
	return nil
}

// keeping calls fn with the driver that keeps b, if one does.
func (n *Node) keeping(b *Bitmap, fn func(*Task, BitmapKeeper) error) error {
	k, ok := n.driver.(BitmapKeeper)
	if !ok || !b.Info().Persistent {
		return nil
	}
	return n.graph.do(n, func(t *Task) error { return fn(t, k) })
}

// changeKept has what is stored of b not be trusted any more.
func (n *Node) changeKept(b *Bitmap) error {
	return n.keeping(b, func(t *Task, k BitmapKeeper) error { return k.ChangeKept(t) })
}

// EnableBitmap says whether what is written to n is marked in b.
func (tx *Tx) EnableBitmap(n *Node, b *Bitmap, enabled bool) error {
	if err := b.Check(BitmapRead); err != nil {
		return err
	}
	if err := n.changeKept(b); err != nil {
		return err
	}
	undo, err := b.Enable(enabled)
	if err == nil {
		tx.Undo(undo, nil)
	}
	return err
}

// ClearBitmap has nothing be marked in b.
func (tx *Tx) ClearBitmap(n *Node, b *Bitmap) error {
	if err := b.Check(BitmapChange); err != nil {
		return err
	}
	if err := n.changeKept(b); err != nil {
		return err
	}
	undo, drop, err := b.Clear()
	if err == nil {
		tx.Undo(undo, func() error { drop(); return nil })
	}
	return err
}

// MergeBitmap marks in b what is marked in others, which may be bitmaps of other nodes.
func (tx *Tx) MergeBitmap(n *Node, b *Bitmap, from ...*Bitmap) error {
	if err := b.Check(BitmapChange); err != nil {
		return err
	}
	if err := n.changeKept(b); err != nil {
		return err
	}
	for _, one := range from {
		undo, drop, err := b.Merge(one)
		if err != nil {
			return err
		}
		tx.Undo(undo, func() error { drop(); return nil })
	}
	return nil
}

// RemoveBitmap has b be in use until the change stands, and takes it away then. Where that fails it stays.
func (tx *Tx) RemoveBitmap(n *Node, b *Bitmap) error {
	if err := b.AcquireFor(BitmapRemove); err != nil {
		return err
	}
	tx.Undo(b.Release, func() error {
		err := n.keeping(b, func(t *Task, k BitmapKeeper) error { return k.DropKept(t, b.Name()) })
		if err != nil {
			b.Release()
			return fmt.Errorf("Failed to remove persistent bitmap '%s' from node '%s': %w", b.Name(), n.name, err)
		}
		b.Forget()
		return nil
	})
	return nil
}
