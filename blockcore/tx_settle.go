package blockcore

// lockOut has drivers keep other processes from as much as the graph needs now. What they need not be kept from any more is given back by done, when
// nothing can fail.
//
// Who writes now and then still needs all of its locks when nobody does: an export that comes back must not find others there. So it is not
// permissions that count, but whether somebody could ask for more.
func (tx *Tx) lockOut() (done []func(), err error) {
	for _, n := range tx.graph.lockers() {
		commit, abort, err := n.can.locker.PrepareLocks(n.onlyRead())
		if err != nil {
			return nil, err
		}
		if commit == nil {
			continue
		}
		tx.undo = append(tx.undo, abort)
		done = append(done, commit)
	}
	return done, nil
}

func (g *Graph) lockers() (all []*Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.sorted() {
		if n.can.locker != nil {
			all = append(all, n)
		}
	}
	return all
}

// onlyRead reports whether n is read-only, or stands only below nodes that are.
func (n *Node) onlyRead() bool {
	g := n.graph
	g.mu.Lock()
	defer g.mu.Unlock()
	if n.readOnly {
		return true
	}
	for _, e := range n.parents {
		if e.parent == nil || e.parent.Writable() {
			return false
		}
	}
	return len(n.parents) > 0
}

// mend has nodes that were reopened put right what is in the way of their writing.
func (tx *Tx) mend() error {
	if len(tx.reopen) == 0 {
		return nil
	}
	g := tx.graph
	g.mu.Lock()
	all := g.sorted()
	g.mu.Unlock()
	for _, n := range all {
		if !tx.reopen[n] || n.can.mender == nil {
			continue
		}
		if err := g.do(n, n.can.mender.Mend); err != nil {
			return &NodeFailure{Doing: "reopen node " + n.name, Err: err}
		}
	}
	return nil
}
