package blockcore

import (
	"fmt"
	"strings"
)

// Permissions is a set of things that one user of a node may do, or lets the others do.
//
// Analogous to QEMU's BLK_PERM_* flags. The numbers of the bits are QEMU's, too: between processes they are offsets of locks in the image.
type Permissions uint8

const (
	// PermRead: what is read is consistent, not in the middle of somebody's change.
	PermRead Permissions = 1 << iota
	// PermWrite: the contents may change.
	PermWrite
	// PermWriteUnchanged: writes that do not change what is read, such as copy-on-read.
	PermWriteUnchanged
	// PermResize: the size may change.
	PermResize

	// PermAll is every permission there is.
	PermAll = PermRead | PermWrite | PermWriteUnchanged | PermResize
)

// permissionNames are QEMU's, in the order of the bits.
var permissionNames = [...]string{"consistent read", "write", "write unchanged", "resize"}

// String lists the names, as QEMU's messages do.
func (p Permissions) String() string { return p.list(", ", permissionNames[:]) }

// Names lists what QMP calls the permissions of p.
func (p Permissions) Names() []string {
	names := []string{}
	for i, name := range [...]string{"consistent-read", "write", "write-unchanged", "resize"} {
		if p&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func (p Permissions) list(separator string, names []string) string {
	var has []string
	for i, name := range names {
		if p&(1<<i) != 0 {
			has = append(has, name)
		}
	}
	return strings.Join(has, separator)
}

// permit computes the permissions of every edge for the graph as it is now and stores them, or says who is in whose way
// and changes nothing. undo stores what was before. graph.mu is held.
//
// Parents come before their children, so that each node asks for what the final graph needs: a change that moves a
// right from one user to another is never refused for a state in between.
func (g *Graph) permit() (undo func(), err error) {
	type grant struct{ perm, shared Permissions }
	grants := map[*Edge]grant{}
	of := func(e *Edge) grant {
		if got, ok := grants[e]; ok {
			return got
		}
		return grant{e.Permissions(), e.Shared()}
	}
	for _, n := range g.parentsFirst() {
		perm, shared := Permissions(0), PermAll
		for _, e := range n.parents {
			perm |= of(e).perm
			shared &= of(e).shared
		}
		for _, e := range n.parents {
			for _, other := range n.parents {
				if clash := of(e).perm &^ of(other).shared; e != other && clash != 0 {
					return nil, conflict(n, clash, e, other)
				}
			}
		}
		if perm&(PermWrite|PermWriteUnchanged) != 0 && !n.Writable() {
			return nil, fmt.Errorf("Block node is read-only: node '%s' is used for writing by %s", n.name, writerOf(n, func(e *Edge) Permissions { return of(e).perm }))
		}
		for _, e := range n.children {
			var got grant
			got.perm, got.shared = n.childPermissions(e.role, perm, shared)
			grants[e] = got
		}
	}
	before := map[*Edge]grant{}
	store := func(all map[*Edge]grant) {
		for e, got := range all {
			e.perm.Store(uint32(got.perm))
			e.shared.Store(uint32(got.shared))
		}
	}
	for e, got := range grants {
		if was := (grant{e.Permissions(), e.Shared()}); was != got {
			before[e] = was
		}
	}
	store(grants)
	return func() { store(before) }, nil
}

// childPermissions is what n, of which its parents want perm and share shared, needs of a child.
func (n *Node) childPermissions(role Role, perm, shared Permissions) (Permissions, Permissions) {
	if n.can.permitter != nil {
		return n.can.permitter.ChildPermissions(role, perm, shared)
	}
	return perm, shared
}

// conflict is QEMU's message for two users who exclude each other.
func conflict(n *Node, clash Permissions, taker, keeper *Edge) error {
	return fmt.Errorf("Permission conflict on node '%s': permissions '%v' are both required by %s (uses node '%s' as '%s' child) and unshared by %s (uses node '%s' as '%s' child).",
		n.name, clash, taker.describeParent(), n.name, taker.name, keeper.describeParent(), n.name, keeper.name)
}

func writerOf(n *Node, perm func(*Edge) Permissions) string {
	for _, e := range n.parents {
		if perm(e)&(PermWrite|PermWriteUnchanged) != 0 {
			return e.describeParent()
		}
	}
	return "nobody"
}

// describeParent names who stands above e, in QEMU's words.
func (e *Edge) describeParent() string {
	if e.root == nil {
		return fmt.Sprintf("node '%s'", e.parent.name)
	}
	if o, ok := e.root.owner.(*jobOwner); ok {
		return fmt.Sprintf("%s job '%s'", o.job.kind, o.job.id)
	}
	if e.root.name == "" {
		return "an unnamed block device"
	}
	return fmt.Sprintf("block device '%s'", e.root.name)
}

// parentsFirst returns all nodes, each behind all nodes that use it. graph.mu is held.
func (g *Graph) parentsFirst() []*Node {
	order := make([]*Node, 0, len(g.nodes))
	done := map[*Node]bool{}
	var visit func(n *Node)
	visit = func(n *Node) {
		if done[n] {
			return
		}
		done[n] = true
		for _, e := range n.parents {
			if e.parent != nil {
				visit(e.parent)
			}
		}
		order = append(order, n)
	}
	for _, n := range g.sorted() {
		visit(n)
	}
	return order
}
