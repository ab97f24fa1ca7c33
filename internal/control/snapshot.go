package control

import (
	"context"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

type snapshotArgs struct {
	Node    string `qmp:"node"`
	Overlay string `qmp:"overlay"`
}

// blockdevSnapshot puts an overlay above a node: whoever uses the node writes to the overlay from now on. The overlay comes to the event loop of the
// node, whose users stay where they are.
func (p *Plane) blockdevSnapshot(ctx context.Context, _ *qmp.Call, a *snapshotArgs) (any, error) {
	return nil, p.transact(ctx, []action{&snapshotAction{args: *a}})
}

// action is one part of a transaction.
type action interface {
	// drained names the nodes to be quiet from the first change to the last.
	drained(p *Plane) ([]*blockcore.Node, error)
	// change is undone by the Tx when another action fails.
	change(p *Plane, tx *blockcore.Tx, d *blockcore.Drained) error
}

type snapshotAction struct {
	args        snapshotArgs
	node, above *blockcore.Node
}

func (s *snapshotAction) drained(p *Plane) (_ []*blockcore.Node, err error) {
	if s.node, err = p.either(s.args.Node); err != nil {
		return nil, err
	}
	if s.above, err = p.either(s.args.Overlay); err != nil {
		return nil, err
	}
	return []*blockcore.Node{s.node, s.above}, nil
}

func (s *snapshotAction) change(p *Plane, tx *blockcore.Tx, d *blockcore.Drained) error {
	switch {
	case len(s.above.Parents()) > 0:
		return qmp.Errorf("The overlay is already in use")
	case s.above.Features().Filter:
		return qmp.Errorf("Filters cannot be used as overlays")
	case hasRole(s.above, blockcore.RoleBacking):
		return qmp.Errorf("The overlay already has a backing image")
	case !s.above.Features().Backing:
		return qmp.Errorf("The overlay does not support backing images")
	}
	if err := tx.Bring(s.above, s.node.Context()); err != nil {
		return err
	}
	if err := tx.Flush(s.node); err != nil {
		return err
	}
	if _, err := tx.Attach(d, s.above, blockcore.RoleBacking, s.node); err != nil {
		return err
	}
	return tx.Replace(d, s.node, s.above)
}

func hasRole(n *blockcore.Node, role blockcore.Role) bool {
	for _, e := range n.Children() {
		if e.Role() == role {
			return true
		}
	}
	return false
}

// abortAction fails, for tests of those who use transactions.
type abortAction struct{}

func (abortAction) drained(*Plane) ([]*blockcore.Node, error) { return nil, nil }

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
	}
	return nil, qmp.NotAccepted("type", a.Type)
}

// transact drains all that is concerned together, and changes it in one Update.
func (p *Plane) transact(ctx context.Context, actions []action) error {
	var nodes []*blockcore.Node
	for _, a := range actions {
		more, err := a.drained(p)
		if err != nil {
			return err
		}
		nodes = append(nodes, more...)
	}
	return p.during(ctx, p.flushedOptions("transaction", nodes...), func(tx *blockcore.Tx, d *blockcore.Drained) error {
		for _, a := range actions {
			if err := a.change(p, tx, d); err != nil {
				return err
			}
		}
		return nil
	})
}
