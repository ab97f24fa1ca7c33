package blockcore

// NodeFailure is what a driver said when its node was to be changed. A monitor passes its words on, as QEMU does.
type NodeFailure struct {
	Doing string // what was to be done, and to which node
	Err   error
}

func (e *NodeFailure) Error() string { return e.Doing + ": " + e.Err.Error() }

// Unwrap returns what the driver said.
func (e *NodeFailure) Unwrap() error { return e.Err }
