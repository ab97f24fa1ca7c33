package main

import (
	"errors"
	"strconv"
	"strings"

	"nbd-dataplane/internal/keyval"
	"nbd-dataplane/qmp"
)

// errNoObject is returned for JSON that is well formed and no object.
var errNoObject = errors.New("JSON value is not an object")

// keysOfJSON reads an object, nested or with dotted keys.
func keysOfJSON(text string) (*keyval.Set, error) {
	v, err := qmp.ParseValue([]byte(text))
	if err != nil {
		return nil, err
	}
	if v.Kind() != qmp.Object {
		return nil, errNoObject
	}
	return keysOf(v), nil
}

// saysEmpty reports whether a member of an object is a text, and nothing; null is something else.
func saysEmpty(text, name string) bool {
	v, err := qmp.ParseValue([]byte(text))
	if err != nil || v.Kind() != qmp.Object {
		return false
	}
	member := v.Member(name)
	said, isText := scalarText(member)
	return isText && said == ""
}

// keysOf makes dotted keys of an object. The depth of a value is bounded where it is parsed.
func keysOf(v qmp.Value) *keyval.Set {
	set := &keyval.Set{}
	flatten(set, "", v)
	return set
}

func flatten(set *keyval.Set, key string, v qmp.Value) {
	below := func(name string) string {
		if key == "" {
			return name
		}
		return key + "." + name
	}
	switch v.Kind() {
	case qmp.Object:
		for _, name := range v.Members() {
			flatten(set, below(name), v.Member(name))
		}
	case qmp.Array:
		for n, element := range v.Elements() {
			flatten(set, below(strconv.Itoa(n)), element)
		}
	default:
		if text, ok := scalarText(v); ok || !isDriver(key) { // QEMU passes over a driver that is no text
			set.Put(key, text)
		}
	}
}

// scalarText is a value as it would stand in a list of keys and values; ok is true for a text.
func scalarText(v qmp.Value) (text string, ok bool) {
	switch v.Kind() {
	case qmp.String:
		err := v.Decode(&text)
		return text, err == nil
	case qmp.Boolean:
		on := false
		_ = v.Decode(&on) // a boolean can be read as one
		return map[bool]string{true: "on", false: "off"}[on], false
	case qmp.Null:
		return "", false
	}
	return string(v.Raw()), false
}

func isDriver(key string) bool { return key == "driver" || strings.HasSuffix(key, ".driver") }
