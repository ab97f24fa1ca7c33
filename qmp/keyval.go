package qmp

import (
	"strconv"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// ParseOption reads an option of a command line: JSON if it begins with a brace, or else key=value,key=value with dots between the
// names of nested members and numbers for the elements of arrays, as QEMU has it. Values of the second form have no type: integers and
// booleans are read from their text when they are decoded. implied is the key of a first part without "=".
func ParseOption(text, implied string) (Value, error) {
	if strings.HasPrefix(text, "{") {
		return ParseValue([]byte(text))
	}
	set, err := keyval.Parse(text, implied)
	if err != nil {
		return Value{}, &Error{GenericError, err.Error()}
	}
	top := &tree{}
	for _, key := range set.Keys() {
		value, _ := set.Take(key)
		if err := top.put(strings.Split(key, "."), value); err != nil {
			return Value{}, err
		}
	}
	return valueOf(top.node()), nil
}

// tree is an option that is being put together.
type tree struct {
	leaf     string
	isLeaf   bool
	names    []string // of branches, in their order
	branches map[string]*tree
}

func (t *tree) put(path []string, value string) error {
	if len(path) == 0 {
		if len(t.branches) > 0 {
			return Errorf("Parameters '%s' used inconsistently", value)
		}
		t.leaf, t.isLeaf = value, true
		return nil
	}
	if t.isLeaf {
		return Errorf("Parameters '%s.*' used inconsistently", path[0])
	}
	next := t.branches[path[0]]
	if next == nil {
		next = &tree{}
		if t.branches == nil {
			t.branches = map[string]*tree{}
		}
		t.branches[path[0]] = next
		t.names = append(t.names, path[0])
	}
	return next.put(path[1:], value)
}

// node makes an array of a tree whose branches are numbered from 0 on, and an object of any other.
func (t *tree) node() node {
	if t.isLeaf {
		return node{kind: String, text: t.leaf, untyped: true}
	}
	if t.isArray() {
		n := node{kind: Array}
		for i := range t.names {
			n.elements = append(n.elements, t.branches[strconv.Itoa(i)].node())
		}
		return n
	}
	n := node{kind: Object}
	for _, name := range t.names {
		n.members = append(n.members, member{name, t.branches[name].node()})
	}
	return n
}

func (t *tree) isArray() bool {
	for i := range t.names {
		if t.branches[strconv.Itoa(i)] == nil {
			return false
		}
	}
	return len(t.names) > 0
}

// typed gives an untyped value the type that is wanted of it, or leaves it alone.
func (v Value) typed(want Kind) Value {
	if !v.node.untyped {
		return v
	}
	switch want {
	case Boolean:
		if b, err := keyval.Bool(v.Name(), v.node.text); err == nil {
			v.node = node{kind: Boolean, text: strconv.FormatBool(b)}
		}
	case Integer:
		if n, err := strconv.ParseInt(v.node.text, 10, 64); err == nil {
			v.node = node{kind: Integer, text: strconv.FormatInt(n, 10)}
		} else if n, err := keyval.Size(v.Name(), v.node.text); err == nil {
			v.node = node{kind: Integer, text: strconv.FormatInt(n, 10)}
		}
	}
	return v
}
