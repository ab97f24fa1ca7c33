package control

import (
	"context"
	"errors"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// action is one part of a transaction.
type action interface {
	// drained gets ready for the change, and names the nodes to be quiet from the first change to the last.
	drained(ctx context.Context, p *Plane) ([]*blockcore.Node, error)
	// change is undone by the Tx when another action fails.
	change(p *Plane, tx *blockcore.Tx, d *blockcore.Drained) error
}

// aborter is an action that has something to take back besides what the Tx does, when the transaction has failed. drained of the action has returned, in
// whatever way. What could not be taken back is returned.
type aborter interface {
	abort(p *Plane) error
}

// settler is an action that has something to do once the transaction stands and clients go on. It cannot fail any more.
type settler interface {
	settle(ctx context.Context, p *Plane)
}

// abortAction fails, for tests of those who use transactions.
type abortAction struct{}

func (abortAction) drained(context.Context, *Plane) ([]*blockcore.Node, error) { return nil, nil }

func (abortAction) change(*Plane, *blockcore.Tx, *blockcore.Drained) error {
	return qmp.Errorf("Transaction aborted using Abort action")
}

type transactionArgs struct {
	Actions    []actionArgs `qmp:"actions"`
	Properties struct {
		Completion string `qmp:"completion-mode,optional,enum=individual|grouped"`
	} `qmp:"properties,optional"`
}

type actionArgs struct {
	Type string    `qmp:"type"`
	Data qmp.Value `qmp:"data"`
}

// transaction does all of its actions at one instant, or none.
func (p *Plane) transaction(ctx context.Context, _ *qmp.Call, a *transactionArgs) (any, error) {
	var actions []action
	for _, one := range a.Actions {
		next, err := one.read()
		if err != nil {
			return nil, err
		}
		if _, works := next.(abortAction); !works && a.Properties.Completion == "grouped" {
			return nil, qmp.Errorf("Action '%s' does not support Transaction property completion-mode = grouped", one.Type)
		}
		actions = append(actions, next)
	}
	return nil, p.transact(ctx, actions)
}

func (a *actionArgs) read() (action, error) {
	switch a.Type {
	case "abort":
		return abortAction{}, a.Data.Decode(&struct{}{})
	case "blockdev-snapshot":
		s := &snapshotAction{}
		return s, a.Data.Decode(&s.args)
	case "blockdev-snapshot-sync":
		s := &snapshotSyncAction{}
		return s, a.Data.Decode(&s.args)
	case "blockdev-snapshot-internal-sync":
		s := &internalSnapshotAction{}
		return s, a.Data.Decode(&s.args)
	}
	if next, args := bitmapActions(a.Type); next != nil {
		return next, a.Data.Decode(args)
	}
	return nil, qmp.NotAccepted("type", a.Type)
}

// transact gets everything ready, drains all that is concerned together, and changes it in one Update.
func (p *Plane) transact(ctx context.Context, actions []action) (err error) {
	var nodes []*blockcore.Node
	begun := 0
	defer func() {
		if err == nil {
			return
		}
		for _, a := range slices.Backward(actions[:begun]) {
			if a, ok := a.(aborter); ok {
				if left := a.abort(p); left != nil {
					err = qmp.Errorf("%v; and this could not be taken back: %v", err, left)
				}
			}
		}
	}()
	for _, a := range actions {
		begun++
		more, err := a.drained(ctx, p)
		if err != nil {
			return err
		}
		nodes = append(nodes, more...)
	}
	err = p.during(ctx, p.flushedOptions("transaction", nodes...), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		for _, a := range actions {
			if err := a.change(p, tx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return notFlushed(actions, err)
	}
	for _, a := range actions {
		if a, ok := a.(settler); ok {
			a.settle(ctx, p)
		}
	}
	return nil
}

// notFlushed says of an error of a flush what QEMU says, which flushes for one action after the other.
func notFlushed(actions []action, err error) error {
	f, is := errors.AsType[*blockcore.FlushFailure](err)
	if !is {
		return err
	}
	if _, said := errors.AsType[*diskRefusal](err); said {
		return err
	}
	for _, a := range actions {
		if s, ok := a.(*internalSnapshotAction); ok && slices.Contains(s.disk.nodes(), f.Node) {
			return s.failed(err)
		}
	}
	return unflushed(err)
}
