package qmp

import (
	"encoding/json"
	"strconv"
)

// Kind is the type of a JSON value.
type Kind uint8

// The types of JSON values. A number without fraction and exponent is an Integer.
const (
	Null Kind = iota
	Boolean
	Integer
	Float
	String
	Array
	Object
)

// node is a JSON value.
type node struct {
	// Immutable.
	kind     Kind
	text     string // of a string what it means, of a number and a boolean how it is written
	members  []member
	elements []node
}

type member struct {
	name  string
	value node
}

func (n node) member(name string) (node, bool) {
	for _, m := range n.members {
		if m.name == name {
			return m.value, true
		}
	}
	return node{}, false
}

// Value is a JSON value with the name by which errors call it. The zero Value is an object without members.
type Value struct {
	// Immutable.
	node  node
	path  string // "", "addr", "addr.data", "actions[0]"
	leaf  string // the last name in the path; "" for an element of an array
	some  bool   // false in the zero Value
	texts bool   // scalars are strings, as ParseOptions makes them
}

// ParseValue reads a text that holds one JSON value, with QEMU's extensions and its errors.
func ParseValue(text []byte) (Value, error) {
	var first node
	var failed error
	values := 0
	s := &stream{emit: func(n node, err error) {
		if values++; values == 1 {
			first, failed = n, err
		}
	}}
	s.feed(text)
	s.flush()
	switch {
	case failed != nil:
		return Value{}, failed
	case values == 0:
		return Value{}, Errorf("Expecting a JSON value")
	case values > 1:
		return Value{}, Errorf("Expecting at most one JSON value")
	}
	return valueOf(first), nil
}

func valueOf(n node) Value { return Value{node: n, some: true} }

func (v Value) child(name string, n node) Value {
	path := name
	if v.path != "" {
		path = v.path + "." + name
	}
	return Value{node: n, path: path, leaf: name, some: true, texts: v.texts}
}

func (v Value) element(n int) Value {
	index := "[" + strconv.Itoa(n) + "]"
	if v.texts {
		index = "." + strconv.Itoa(n)
	}
	return Value{node: v.node.elements[n], path: v.path + index, some: true, texts: v.texts}
}

// Kind is the type of the value.
func (v Value) Kind() Kind {
	if !v.some {
		return Object
	}
	return v.node.kind
}

// Path is the name of the value with those it is nested in, as "actions[0].data.node".
func (v Value) Path() string { return v.path }

// Name is the last name of the path, as QEMU's errors about values of enumerations and alternates have it: "null" for
// an element of an array.
func (v Value) Name() string {
	if v.leaf == "" {
		return "null"
	}
	return v.leaf
}

// Raw is the value as standard JSON.
func (v Value) Raw() json.RawMessage {
	if !v.some {
		return json.RawMessage("{}")
	}
	return appendCompact(nil, v.node)
}

// Has is true for an object that has the member.
func (v Value) Has(name string) bool {
	_, ok := v.node.member(name)
	return ok
}

// Elements are those of an array.
func (v Value) Elements() []Value {
	all := make([]Value, len(v.node.elements))
	for n := range all {
		all[n] = v.element(n)
	}
	return all
}

// WrongType is the error that this value is not what was expected, under its last name: for values that may be one of
// several types, which QEMU calls alternates.
func (v Value) WrongType(expected string) error { return WrongType(v.Name(), expected) }

// NotAccepted is the error that this value is not in the list of an enumeration.
func (v Value) NotAccepted() error { return NotAccepted(v.Name(), v.node.text) }
