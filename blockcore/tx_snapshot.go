package blockcore

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// Alter runs fn on the loop of n, which has been flushed: its driver changes what it keeps besides the contents. undo, which may be nil, takes that back when
// the change does not stand; without it fn has to come last in its change. d covers n. Owners are told when their size has changed.
func (tx *Tx) Alter(d *Drained, n *Node, fn func(t *Task) (undo func(t *Task), err error)) error {
	return tx.alter(d, n, true, fn)
}

// alter is Alter of a node that is flushed before, or not.
func (tx *Tx) alter(d *Drained, n *Node, flushed bool, fn func(t *Task) (undo func(t *Task), err error)) error {
	roots, err := tx.concerned(d, n)
	if err != nil {
		return err
	}
	if flushed {
		if err := tx.Flush(n); err != nil {
			return err
		}
	}
	before := sizesOf(roots)
	var undo func(*Task)
	err = tx.graph.do(n, func(t *Task) (err error) {
		undo, err = fn(t)
		return err
	})
	if err != nil {
		tellSizes(roots, before)
		return err
	}
	if undo != nil {
		tx.undo = append(tx.undo, func() {
			_ = tx.graph.do(n, func(t *Task) error { undo(t); return nil })
		})
	}
	tx.finish = append(tx.finish, func() error { tellSizes(roots, before); return nil })
	return nil
}

// NewSnapshot is a snapshot that is to be.
type NewSnapshot struct {
	Name  string
	Taken time.Time
	// May refuses it, knowing those that there are, nil = any may be. It is asked on the loop: to ask before would be two more switches between threads while
	// clients stand still.
	May func(all []Snapshot) error
	// Undone is told when it could not be taken back with the change; it may be nil.
	Undone func(error)
}

// CreateSnapshot has the driver of n keep the disk as it is.
func (tx *Tx) CreateSnapshot(d *Drained, n *Node, o NewSnapshot) error {
	s, err := n.snapshotter()
	if err != nil {
		return err
	}
	return tx.alter(d, n, false, func(t *Task) (func(*Task), error) {
		if o.May != nil {
			all, err := s.Snapshots(t)
			if err == nil {
				err = o.May(all)
			}
			if err != nil {
				return nil, err
			}
		}
		id, err := s.CreateSnapshot(t, o.Name, o.Taken)
		if err != nil {
			return nil, err
		}
		return func(t *Task) {
			if err := s.DeleteSnapshot(t, id); err != nil && o.Undone != nil {
				o.Undone(err)
			}
		}, nil
	})
}

// ExpectSnapshot tells the driver of n, before a section begins for it, that a snapshot is to be taken, or that none is after all. It waits until the driver has
// done what it does ahead, or ctx ends. Not on a loop.
func (n *Node) ExpectSnapshot(ctx context.Context, expected bool) {
	if s, ok := n.driver.(SnapshotExpecter); ok {
		n.ahead(ctx, opExpect, func(t *Task) { s.ExpectSnapshot(t, expected) })
	}
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

// KeepsSnapshots reports whether the driver of n keeps any. Safe from anywhere.
func (n *Node) KeepsSnapshots() bool { return n.can.snapshots != nil }

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
