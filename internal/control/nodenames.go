package control

import (
	"fmt"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// checkNames looks at the names of a node that is to be made, and of those that are described inside of it, before any of them is opened: a file is
// not touched, and its locks are not met, for a description that cannot do. Names that others take at the same time are found when the nodes
// are added.
func (o *Opening) checkNames(v qmp.Value) error {
	if o.Name == nil {
		if o.plane.broken(v, 0) {
			return nil // whoever opens it says what is wrong, and gets to no file
		}
		return errNameless
	}
	return o.plane.checkNamesIn(v, map[string]bool{}, 0)
}

// errNameless is QEMU's answer to a description that is right but for that.
var errNameless = qmp.Errorf("'node-name' must be specified for the root node")

// broken reports whether a description has no driver that there is, or something inside of it that can be no node. QEMU says so before it misses a name.
func (p *Plane) broken(v qmp.Value, depth int) bool {
	var name string
	if v.Kind() != qmp.Object || depth > nestingMax || !v.Has("driver") || v.Member("driver").Decode(&name) != nil {
		return true
	}
	if _, known := p.options.Drivers[name]; !known {
		return true
	}
	for _, role := range []blockcore.Role{blockcore.RoleFile, blockcore.RoleBacking, blockcore.RoleData} {
		if !v.Has(string(role)) {
			continue
		}
		switch child := v.Member(string(role)); child.Kind() {
		case qmp.String, qmp.Null: // another node, or none
		default:
			if p.broken(child, depth+1) {
				return true
			}
		}
	}
	return false
}

// checkNamesIn goes through the names in the order in which QEMU gives them: a node has its own when its file is open, and before all else that is below it.
// What is no description of a node is left to those who read it.
func (p *Plane) checkNamesIn(v qmp.Value, seen map[string]bool, depth int) error {
	if v.Kind() != qmp.Object || !v.Has("driver") || depth > nestingMax {
		return nil
	}
	file := string(blockcore.RoleFile)
	if v.Has(file) {
		if err := p.checkNamesIn(v.Member(file), seen, depth+1); err != nil {
			return err
		}
	}
	if err := p.checkOwnName(v, seen); err != nil {
		return err
	}
	for _, member := range v.Members() {
		if member == file {
			continue
		}
		err := p.checkNamesIn(v.Member(member), seen, depth+1)
		if err != nil && member == string(blockcore.RoleBacking) {
			err = fmt.Errorf("Could not open backing file: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkOwnName looks at the name of the node that v describes, if it has one.
func (p *Plane) checkOwnName(v qmp.Value, seen map[string]bool) error {
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
