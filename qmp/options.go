package qmp

import (
	"iter"
	"reflect"
	"strconv"
	"strings"

	"nbd-dataplane/internal/keyval"
)

// ParseOptions makes a value of the keys and values of a command line, as "file.driver=file" or "bitmaps.0=b": dots
// nest, and names that are all numbers make an array. Of a key that comes twice the last value counts. When such a
// value is decoded, texts become what the field is, and errors are worded for this form.
func ParseOptions(pairs iter.Seq2[string, string]) (Value, error) {
	root := &branch{}
	for key, text := range pairs {
		if err := root.put(key, text); err != nil {
			return Value{}, err
		}
	}
	n, err := root.node("")
	return Value{node: n, some: true, texts: true}, err
}

// branch is an object that is being made.
type branch struct {
	// Owned by the goroutine that reads.
	names    []string
	leaves   map[string]string
	branches map[string]*branch
}

func (b *branch) put(key, text string) error {
	path := strings.Split(key, ".")
	if len(path) > nestingMax {
		return Errorf("JSON nesting depth limit exceeded")
	}
	for n, name := range path {
		_, isLeaf := b.leaves[name]
		next, isBranch := b.branches[name]
		isLast := n == len(path)-1
		if isLast && isBranch || !isLast && isLeaf {
			return inconsistent(strings.Join(path[:n+1], "."))
		}
		if !isLeaf && !isBranch {
			next = b.add(name, isLast)
		}
		if isLast {
			b.leaves[name] = text
		}
		b = next
	}
	return nil
}

func (b *branch) add(name string, leaf bool) *branch {
	if b.leaves == nil {
		b.leaves, b.branches = map[string]string{}, map[string]*branch{}
	}
	b.names = append(b.names, name)
	if leaf {
		return nil
	}
	b.branches[name] = &branch{}
	return b.branches[name]
}

func inconsistent(path string) error { return Errorf("Parameters '%s.*' used inconsistently", path) }

// node is the object, or the array if it is meant for one. What is at the top is no array.
func (b *branch) node(path string) (node, error) {
	numbers := 0
	for _, name := range b.names {
		if isIndex(name) {
			numbers++
		}
	}
	switch {
	case path == "" || numbers == 0:
		return b.object(path)
	case numbers < len(b.names):
		return node{}, inconsistent(path)
	}
	return b.array(path)
}

func isIndex(name string) bool {
	n, err := strconv.Atoi(name)
	return err == nil && n >= 0 && strconv.Itoa(n) == name
}

func (b *branch) object(path string) (node, error) {
	object := node{kind: Object}
	for _, name := range b.names {
		value, err := b.child(path, name)
		if err != nil {
			return node{}, err
		}
		object.members = append(object.members, member{name, value})
	}
	return object, nil
}

func (b *branch) array(path string) (node, error) {
	array := node{kind: Array}
	for n := range b.names {
		name := strconv.Itoa(n)
		if _, isLeaf := b.leaves[name]; !isLeaf && b.branches[name] == nil {
			return node{}, Errorf("Parameter '%s.%s' missing", path, name)
		}
		value, err := b.child(path, name)
		if err != nil {
			return node{}, err
		}
		array.elements = append(array.elements, value)
	}
	return array, nil
}

func (b *branch) child(path, name string) (node, error) {
	if text, isLeaf := b.leaves[name]; isLeaf {
		return stringOf(text), nil
	}
	below := b.branches[name]
	if path != "" {
		name = path + "." + name
	}
	return below.node(name)
}

// decodeText reads a value of a command line into a field that is no string.
func (v Value) decodeText(dst reflect.Value) error {
	switch {
	case dst.Kind() == reflect.Bool:
		on, err := keyval.Bool(v.path, v.node.text)
		dst.SetBool(on)
		return err
	case dst.CanFloat():
		return v.as(Float, v.node.text).decodeFloat(dst)
	case dst.CanInt():
		n, err := strconv.ParseInt(v.node.text, 0, 64)
		if err != nil {
			return Expects(v.path, "integer")
		}
		return v.as(Integer, strconv.FormatInt(n, 10)).decodeInt(dst)
	}
	n, err := strconv.ParseUint(v.node.text, 0, 64)
	if err != nil {
		return Expects(v.path, "integer")
	}
	return v.as(Integer, strconv.FormatUint(n, 10)).decodeUint(dst)
}

func (v Value) as(kind Kind, text string) Value {
	v.node.kind, v.node.text = kind, text
	return v
}
