package blockcore

import "nbd-dataplane/internal/check"

// RangeHold keeps everybody from changing a range of a node, whatever edge they come by, while its holder reads there and writes back what he has
// read. Others may read. The holder writes with WriteHeld and ZeroHeld. Owned by the context.
//
// Analogous to QEMU's serialising request.
type RangeHold struct {
	node *Node
	lock *RangeLock
}

// Hold waits until nobody is changing the range of the child, and keeps all who want to from it until Release. The holder asks for no other range of
// the child meanwhile.
//
// Where the child has no alignment its writes take no lock of their range as long as nobody holds one: they are counted only, together, and
// whoever comes to hold a range waits for all of those that are under way.
func (e *Edge) Hold(t *Task, r Range) RangeHold {
	n := e.child.Load()
	n.holds++ // the writes that begin from now on have locks
	lock := n.writes.Acquire(t, r.Widen(n.align()), true)
	for n.loose > 0 {
		t.Wait(&n.loosened)
	}
	return RangeHold{n, lock}
}

// Release lets those go on who wait to change the range.
func (h RangeHold) Release() {
	h.node.writes.Release(h.lock)
	h.node.holds--
}

// isLoose reports whether a change of n needs no lock of its range: it is begun by loosen and ended by tighten.
func (n *Node) isLoose() bool { return n.holds == 0 && n.align() == 1 }

func (n *Node) loosen() { n.loose++ }

func (n *Node) tighten() {
	n.loose--
	if n.loose == 0 && n.holds > 0 {
		n.loosened.WakeAll()
	}
}

// assertHeld checks, where the check tag is set, that somebody holds the range of a request that says that its sender does.
func (n *Node) assertHeld(r Range) {
	if check.Enabled {
		check.Invariant(n.writes.holds(r.Widen(n.align())), "node %s: a request on %v comes from a holder of the range, and nobody holds it", n.name, r)
	}
}
