package blockcore

// opFlush is what a flush is called that a node does for no request.
const opFlush = "flush"

// opExpect is what it is called that a driver gets ready for a snapshot.
const opExpect = "expect-snapshot"

// errand notes that n is going to do something for no request: counted, so that a drain waits for it, and listed, so that it can be
// named. On the loop.
func (n *Node) errand(op string) *Ticket {
	n.inFlight.Add(1)
	k := &Ticket{Op: op, since: n.Context().clock.now()}
	n.errands.add(k)
	return k
}

// run does what k was noted for.
func (n *Node) run(t *Task, k *Ticket, work func(t *Task)) {
	k.task, t.node = t, n
	work(t)
	k.task, t.node = nil, nil
	n.errands.remove(k)
	n.release()
}

// Background runs work as a Task that n counts as in flight, so that a drain waits for it; op is what it is called then. On the loop.
func (n *Node) Background(op string, work func(t *Task)) {
	k := n.errand(op)
	n.Context().Spawn(BodyFunc(func(t *Task) { n.run(t, k, work) }))
}
