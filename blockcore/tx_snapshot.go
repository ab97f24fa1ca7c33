package blockcore

import (
	"fmt"
	"syscall"
	"time"
)

// Alter runs fn on the loop of n, which has been flushed: its driver changes what it keeps besides the contents. undo, which may be nil, takes that back when
// the change does not stand; without it fn has to come last in its change. d covers n. Owners are told when their size has changed.
func (tx *Tx) Alter(d *Drained, n *Node, fn func(t *Task) (undo func(t *Task), err error)) error {
	g := tx.graph
	g.mu.Lock()
	if err := g.has(n); err != nil {
		g.mu.Unlock()
		return err
	}
	tx.demand(d, n, nil)
	_, roots := g.component(n)
	g.mu.Unlock()
	if err := tx.Flush(n); err != nil {
		return err
	}
	before := sizesOf(roots)
	var undo func(*Task)
	err := n.Context().Do(func(t *Task) (err error) {
		undo, err = fn(t)
		return err
	})
	if err != nil {
		tellSizes(roots, before)
		return err
	}
	if undo != nil {
		tx.undo = append(tx.undo, func() {
			_ = n.Context().Do(func(t *Task) error { undo(t); return nil })
		})
	}
	tx.finish = append(tx.finish, func() error { tellSizes(roots, before); return nil })
	return nil
}

// CreateSnapshot has the driver of n keep the disk as it is. undone is told when that could not be taken back with the change; it may be nil.
func (tx *Tx) CreateSnapshot(d *Drained, n *Node, name string, taken time.Time, undone func(error)) error {
	s, err := n.snapshotter()
	if err != nil {
		return err
	}
	return tx.Alter(d, n, func(t *Task) (func(*Task), error) {
		id, err := s.CreateSnapshot(t, name, taken)
		if err != nil {
			return nil, err
		}
		return func(t *Task) {
			if err := s.DeleteSnapshot(t, id); err != nil && undone != nil {
				undone(err)
			}
		}, nil
	})
}

// DeleteSnapshot has the driver of n give up a snapshot. It cannot be undone and has to come last in its change.
func (tx *Tx) DeleteSnapshot(d *Drained, n *Node, id string) error {
	s, err := n.snapshotter()
	if err != nil {
		return err
	}
	return tx.Alter(d, n, func(t *Task) (func(*Task), error) { return nil, s.DeleteSnapshot(t, id) })
}

// ApplySnapshot makes the disk of n what it was at a snapshot. It cannot be undone and has to come last in its change.
func (tx *Tx) ApplySnapshot(d *Drained, n *Node, id string) error {
	s, err := n.snapshotter()
	if err != nil {
		return err
	}
	return tx.Alter(d, n, func(t *Task) (func(*Task), error) { return nil, s.ApplySnapshot(t, id) })
}

// Snapshots lists the snapshots that the driver of n keeps. Not on a loop.
func (n *Node) Snapshots() (all []Snapshot, err error) {
	s, err := n.snapshotter()
	if err != nil {
		return nil, err
	}
	err = n.Context().Do(func(t *Task) (err error) {
		all, err = s.Snapshots(t)
		return err
	})
	return all, err
}

func (n *Node) snapshotter() (Snapshotter, error) {
	if n.can.snapshots == nil {
		return nil, fmt.Errorf("node %s keeps no snapshots: %w", n.name, syscall.ENOTSUP)
	}
	return n.can.snapshots, nil
}

// NameBacking has the driver of n write down what the image below is called, and its format. What is below stays.
func (tx *Tx) NameBacking(d *Drained, n *Node, name, format string) error {
	w, ok := n.driver.(BackingNamer)
	if !ok {
		return fmt.Errorf("node %s writes down no backing file: %w", n.name, syscall.ENOTSUP)
	}
	return tx.Alter(d, n, func(t *Task) (func(*Task), error) {
		before, beforeFormat := w.BackingName()
		if err := w.NameBacking(t, name, format); err != nil {
			return nil, err
		}
		return func(t *Task) { _ = w.NameBacking(t, before, beforeFormat) }, nil
	})
}
