package blockcore

import "errors"

// NodeFailure is what a driver said when its node was to be changed. A monitor passes its words on, as QEMU does.
type NodeFailure struct {
	Doing string // what was to be done, and to which node
	Err   error
}

func (e *NodeFailure) Error() string { return e.Doing + ": " + e.Err.Error() }

// Unwrap returns what the driver said.
func (e *NodeFailure) Unwrap() error { return e.Err }

// StepFailure is what the disk below a driver has refused in a step of a larger work. A monitor is told the step and the number of the error, as by QEMU; where
// it happened is in Err.
type StepFailure struct {
	Step string // "Failed to grow the L1 table"
	Err  error
}

func (e *StepFailure) Error() string { return e.Step + ": " + e.Err.Error() }

// Unwrap returns what was refused, and where.
func (e *StepFailure) Unwrap() error { return e.Err }

// DuringStep says in which step an error came, unless that is known already.
func DuringStep(step string, err error) error {
	if _, known := errors.AsType[*StepFailure](err); known || err == nil {
		return err
	}
	return &StepFailure{Step: step, Err: err}
}

// FlushFailure is what the driver of a node said when it was to be flushed for a change, which was not made then.
type FlushFailure struct {
	Node *Node
	Err  error
}

func (e *FlushFailure) Error() string { return "flush node " + e.Node.name + ": " + e.Err.Error() }

// Unwrap returns what the driver said.
func (e *FlushFailure) Unwrap() error { return e.Err }
