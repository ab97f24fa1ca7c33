package blockcore

import (
	"fmt"
	"slices"
	"syscall"
)

// Reopen has the driver of n take over other options, which are complete and of the driver's own type, as if it were opened anew. It
// is so at once, and as it was before when the change does not stand; several nodes may be reopened in one change. d covers n.
//
// Analogous to QEMU's bdrv_reopen_multiple.
func (tx *Tx) Reopen(d *Drained, n *Node, options any) error {
	roots, err := tx.concerned(d, n)
	if err != nil {
		return err
	}
	if n.can.reopener == nil {
		return fmt.Errorf("node %s does not support reopening: %w", n.name, syscall.ENOTSUP)
	}
	if tx.reopen[n] {
		return fmt.Errorf("node %s is to be reopened twice in one change: %w", n.name, syscall.EINVAL)
	}
	before := sizesOf(roots)
	var commit, abort func(*Task)
	err = tx.graph.do(n, func(t *Task) (err error) {
		commit, abort, err = n.can.reopener.PrepareReopen(t, options)
		return err
	})
	if err != nil {
		return &NodeFailure{Doing: "reopen node " + n.name, Err: err}
	}
	tx.reopen[n] = true
	tx.undo = append(tx.undo, func() {
		_ = tx.graph.do(n, func(t *Task) error { abort(t); return nil })
	})
	if commit == nil && slices.Equal(before, sizesOf(roots)) {
		return nil
	}
	tx.finish = append(tx.finish, func() error {
		tellSizes(roots, before)
		if commit == nil {
			return nil
		}
		return tx.graph.do(n, func(t *Task) error { commit(t); return nil })
	})
	return nil
}

// SetAccess is SetReadOnly for the driver of n as well, where it cares. Others may then use what it has open as they may while it is read.
func (tx *Tx) SetAccess(d *Drained, n *Node, readOnly bool) error {
	if err := tx.SetReadOnly(d, n, readOnly); err != nil {
		return err
	}
	a, ok := n.driver.(AccessChanger)
	if !ok {
		return nil
	}
	options := a.OptionsFor(readOnly)
	if options == nil {
		return nil
	}
	return tx.Reopen(d, n, options)
}

// SetReadOnly keeps everybody from writing to n, whatever its driver can, or does so no more. The change does not stand while somebody
// writes. d covers n.
func (tx *Tx) SetReadOnly(d *Drained, n *Node, readOnly bool) error {
	g := tx.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.has(n); err != nil {
		return err
	}
	tx.demand(d, n, nil)
	before := n.readOnly
	tx.undo = append(tx.undo, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		n.readOnly = before
	})
	n.readOnly = readOnly
	return nil
}
