package blockcore

import (
	"fmt"
	"math"
	"syscall"
)

// Resize changes the size of the child, on behalf of a parent that is being resized itself: see Tx.Resize. A child that has other users
// too must be drained with them.
func (e *Edge) Resize(t *Task, sizeBytes int64) error {
	n := e.child.Load()
	if err := e.mayResize(n, sizeBytes); err != nil {
		return err
	}
	above := n.begin(t)
	err := n.can.resizer.Resize(t, sizeBytes)
	n.refitted()
	n.end(t, above)
	return err
}

// Extend makes the child at least toBytes long, rounded up to its alignment, so that what is behind its end can be written.
func (e *Edge) Extend(t *Task, toBytes int64) error {
	n := e.child.Load()
	switch {
	case toBytes <= n.Size():
		return nil
	case e.Permissions()&PermResize == 0:
		return fmt.Errorf("extend node %s: %w", n.name, syscall.EPERM)
	case n.can.extender == nil || !n.Writable():
		return fmt.Errorf("node %s ends at %d bytes: %w", n.name, n.Size(), syscall.ENOSPC)
	case toBytes > math.MaxInt64-n.align():
		return fmt.Errorf("extend node %s: %w", n.name, syscall.EFBIG)
	}
	above := n.begin(t)
	err := n.can.extender.Extend(t, Range{Length: toBytes}.Widen(n.align()).Length)
	n.end(t, above)
	return err
}

// Reserve sets space for a part of the child apart, which reads as it did.
func (e *Edge) Reserve(t *Task, r Range) error {
	n := e.child.Load()
	switch {
	case e.Permissions()&PermWrite == 0:
		return fmt.Errorf("reserve space in node %s: %w", n.name, syscall.EPERM)
	case n.can.reserver == nil || !n.Writable():
		return fmt.Errorf("node %s cannot set space apart: %w", n.name, syscall.ENOTSUP)
	case r.Offset < 0 || r.Length < 0 || r.Offset > n.Size() || r.Length > n.Size()-r.Offset:
		return fmt.Errorf("reserve space in node %s, which ends at %d bytes: %w", n.name, n.Size(), syscall.EINVAL)
	}
	above := n.begin(t)
	err := n.can.reserver.Reserve(t, r)
	n.end(t, above)
	return err
}

func (e *Edge) mayResize(n *Node, sizeBytes int64) error {
	switch {
	case n.can.resizer == nil:
		return fmt.Errorf("node %s cannot be resized: %w", n.name, syscall.ENOTSUP)
	case !n.Writable():
		return fmt.Errorf("Image is read-only: node %s: %w", n.name, syscall.EACCES)
	case sizeBytes < 0 || sizeBytes%n.align() != 0:
		return fmt.Errorf("node %s: a size of %d bytes is not a multiple of %d: %w", n.name, sizeBytes, n.align(), syscall.EINVAL)
	}
	for _, other := range n.Parents() {
		switch {
		case other == e:
		case other.Shared()&PermResize == 0:
			return conflict(n, PermResize, e, other)
		case !n.still:
			return fmt.Errorf("node %s is used by %s too, which is not drained: %w", n.name, other.describeParent(), syscall.EBUSY)
		}
	}
	n.graph.mu.Lock()
	defer n.graph.mu.Unlock()
	return n.mayBecome(sizeBytes, e)
}

// mayBecome asks the nodes above whether they can live with another size of n: what was cut off does not come back. The one that asks
// through by knows. graph.mu is held.
func (n *Node) mayBecome(sizeBytes int64, by *Edge) error {
	for _, e := range n.parents {
		if e == by || e.parent == nil || e.parent.can.stretcher == nil {
			continue
		}
		own, err := e.parent.can.stretcher.SizeOver(sizeBytes)
		if err != nil {
			return fmt.Errorf("node %s: %w", e.parent.name, err)
		}
		if err := e.parent.mayBecome(own, nil); err != nil {
			return err
		}
	}
	return nil
}
