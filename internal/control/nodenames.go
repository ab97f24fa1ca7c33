package control

import (
	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// checkNames looks at the names of a node that is to be made, and of those that are described inside of it, before any of them is opened: a file is
// not touched, and its locks are not met, for a description that cannot do. Names that others take at the same time are found when the nodes
// are added.
func (o *Opening) checkNames(v qmp.Value) error {
	if o.Name == nil {
		return qmp.Errorf("'node-name' must be specified for the root node")
	}
	return o.plane.checkNamesIn(v, map[string]bool{}, 0)
}

// checkNamesIn goes through children first, as they are opened. What is no description of a node is left to those who read it.
func (p *Plane) checkNamesIn(v qmp.Value, seen map[string]bool, depth int) error {
	if v.Kind() != qmp.Object || !v.Has("driver") || depth > nestingMax {
		return nil
	}
	for _, member := range v.Members() {
		if err := p.checkNamesIn(v.Member(member), seen, depth+1); err != nil {
			return err
		}
	}
	var name string
	if !v.Has("node-name") || v.Member("node-name").Decode(&name) != nil {
		return nil
	}
	if err := p.checkNewName(name); err != nil {
		return err
	}
	if seen[name] {
		return duplicate(name)
	}
	seen[name] = true
	return nil
}

// checkNewName says whether a node can be called that.
func (p *Plane) checkNewName(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if p.graph.Node(name) != nil {
		return duplicate(name)
	}
	return nil
}

func checkName(name string) error {
	if !blockcore.IsIdentifier(name) {
		return qmp.Errorf("Invalid node-name: '%s'", name)
	}
	if len(name) > nodeNameMax {
		return qmp.Errorf("Node name too long")
	}
	return nil
}

func duplicate(name string) error {
	return qmp.Errorf("Duplicate nodes with node-name='%s'", name)
}
