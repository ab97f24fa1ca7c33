package blockcore

import "nbd-dataplane/internal/check"

// Control runs fn in an ordinary goroutine, where it may drain and change the graph, and returns its error. The Task is suspended
// meanwhile and counts for nothing: it has no request admitted, since a drain would wait for that one for ever.
//
// Analogous to what QEMU's bdrv_drained_begin does in a coroutine.
func (t *Task) Control(fn func() error) error {
	check.Invariant(t.ticket == nil && t.node == nil, "a Task asks for control in the middle of a request")
	var err error
	go t.control(fn, &err)
	t.suspend()
	return err
}

// control runs fn for a Task. It ends with fn.
func (t *Task) control(fn func() error, err *error) {
	*err = fn()
	t.ctx.resumeFromWorker(t)
}
