package qmp

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Decoder is a type that reads itself from a value: a union, whose members depend on one of them, or an alternate,
// which may be of several types. Value.Take and Value.Kind are how.
type Decoder interface {
	DecodeQMP(v Value) error
}

// Enum is a string type with a list of the values that it can have.
type Enum interface {
	Values() []string
}

// Decode reads JSON into dst, which is a pointer, strictly: see Value.Decode. It is for JSON that does not come
// over a monitor, as an option of a command line.
func Decode(text []byte, dst any) error {
	v, err := ParseValue(text)
	if err != nil {
		return err
	}
	return v.Decode(dst)
}

// Decode reads the value into what dst points at. Members of structs are named by tags:
//
//	NodeName  string   `qmp:"node-name"`        // must be there
//	Size      *uint64  `qmp:"size"`             // nil if it is not there
//	ReadOnly  bool     `qmp:"read-only,optional"` // false if it is not there
//	Mode      string   `qmp:"mode,optional,enum=safe|hard"`
//
// Integers, floats, booleans, strings, slices and structs are read as what they are; embedded structs add their members to those
// of the struct around them; a json.RawMessage or a Value takes anything; a type with a method of Decoder or
// Enum is asked. Fields without a tag are left alone. Nothing is converted, null is never "not there", and a member that no field
// takes is an error.
func (v Value) Decode(dst any) error { return v.decode(reflect.ValueOf(dst).Elem()) }

// Take reads the members of an object that dst, a pointer to a struct, has fields for, and returns the object with
// the members that are left. A union is read so: first what all branches share, then the rest into the
// struct of the branch.
func (v Value) Take(dst any) (rest Value, err error) {
	if v.Kind() != Object {
		return Value{}, v.mismatch("object")
	}
	taken := map[string]bool{}
	if err := v.fields(reflect.ValueOf(dst).Elem(), taken); err != nil {
		return Value{}, err
	}
	rest = v
	rest.node.members = nil
	for _, m := range v.node.members {
		if !taken[m.name] {
			rest.node.members = append(rest.node.members, m)
		}
	}
	return rest, nil
}

// mismatch is the error about a value of a wrong type under its whole path.
func (v Value) mismatch(expected string) error {
	if v.path == "" {
		return v.WrongType(expected)
	}
	return WrongType(v.path, expected)
}

var (
	valueType = reflect.TypeFor[Value]()
	rawType   = reflect.TypeFor[json.RawMessage]()
)

func (v Value) decode(dst reflect.Value) error {
	switch {
	case dst.Type() == valueType:
		dst.Set(reflect.ValueOf(v))
		return nil
	case dst.Type() == rawType:
		dst.SetBytes(v.Raw())
		return nil
	}
	if own, ok := dst.Addr().Interface().(Decoder); ok {
		return own.DecodeQMP(v)
	}
	switch dst.Kind() {
	case reflect.Pointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		return v.decode(dst.Elem())
	case reflect.Struct:
		rest, err := v.Take(dst.Addr().Interface())
		if err != nil {
			return err
		}
		return rest.nothingLeft()
	case reflect.Slice:
		return v.decodeSlice(dst)
	}
	return v.decodeScalar(dst)
}

// nothingLeft is an error about the first member.
func (v Value) nothingLeft() error {
	for _, m := range v.node.members {
		return Unexpected(v.child(m.name, m.value).path)
	}
	return nil
}

func (v Value) decodeSlice(dst reflect.Value) error {
	if v.Kind() != Array {
		return v.mismatch("array")
	}
	all := reflect.MakeSlice(dst.Type(), len(v.node.elements), len(v.node.elements))
	for n := range v.node.elements {
		if err := v.element(n).decode(all.Index(n)); err != nil {
			return err
		}
	}
	dst.Set(all)
	return nil
}

func (v Value) decodeScalar(dst reflect.Value) error {
	switch kind := dst.Kind(); {
	case kind == reflect.String:
		return v.decodeString(dst)
	case v.texts && v.Kind() == String && (kind == reflect.Bool || dst.CanInt() || dst.CanUint() || dst.CanFloat()):
		return v.decodeText(dst)
	case kind == reflect.Bool:
		if v.Kind() != Boolean {
			return v.mismatch("boolean")
		}
		dst.SetBool(v.node.text == "true")
		return nil
	case dst.CanInt():
		return v.decodeInt(dst)
	case dst.CanUint():
		return v.decodeUint(dst)
	case dst.CanFloat():
		return v.decodeFloat(dst)
	}
	panic("qmp: no value can be read into a " + dst.Type().String())
}

func (v Value) decodeString(dst reflect.Value) error {
	if v.Kind() != String {
		return v.mismatch("string")
	}
	if enum, ok := dst.Interface().(Enum); ok && !slices.Contains(enum.Values(), v.node.text) {
		return v.NotAccepted()
	}
	dst.SetString(v.node.text)
	return nil
}

// decodeInt has two errors: for what is no int64, and for what does not fit a type that is narrower.
func (v Value) decodeInt(dst reflect.Value) error {
	n, err := strconv.ParseInt(v.node.text, 10, 64)
	if v.Kind() != Integer || err != nil {
		return v.mismatch("integer")
	}
	if dst.OverflowInt(n) {
		return Expects(v.Name(), dst.Kind().String()+"_t")
	}
	dst.SetInt(n)
	return nil
}

// decodeUint refuses negative numbers of any width; QEMU takes -1 for the largest uint64, which nobody means.
func (v Value) decodeUint(dst reflect.Value) error {
	if v.Kind() != Integer {
		return Expects(v.Name(), "uint64")
	}
	n, err := strconv.ParseUint(v.node.text, 10, 64)
	if v.node.text == "-0" {
		n, err = 0, nil
	}
	switch {
	case (err != nil || dst.OverflowUint(n)) && dst.Type().Bits() < 64:
		return Expects(v.Name(), dst.Kind().String()+"_t")
	case err != nil:
		return Expects(v.Name(), "uint64")
	}
	dst.SetUint(n)
	return nil
}

func (v Value) decodeFloat(dst reflect.Value) error {
	if v.Kind() != Integer && v.Kind() != Float {
		return v.mismatch("number")
	}
	n, err := strconv.ParseFloat(v.node.text, 64)
	if err != nil || math.IsInf(n, 0) {
		return v.mismatch("number")
	}
	dst.SetFloat(n)
	return nil
}

// fields reads the members that the fields of a struct name, in the order of the fields, and notes them.
func (v Value) fields(dst reflect.Value, taken map[string]bool) error {
	for n := range dst.NumField() {
		field := dst.Type().Field(n)
		tag, tagged := field.Tag.Lookup("qmp")
		var err error
		switch {
		case tagged:
			err = v.field(dst.Field(n), tag, taken)
		case field.Anonymous && field.Type.Kind() == reflect.Struct:
			err = v.fields(dst.Field(n), taken)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (v Value) field(dst reflect.Value, tag string, taken map[string]bool) error {
	name, options, _ := strings.Cut(tag, ",")
	n, found := v.node.member(name)
	value := v.child(name, n)
	if !found {
		if dst.Kind() == reflect.Pointer || hasOption(options, "optional") {
			return nil
		}
		return Missing(value.path)
	}
	taken[name] = true
	if err := value.decode(dst); err != nil {
		return err
	}
	return value.checkEnum(options)
}

func hasOption(options, name string) bool { return slices.Contains(strings.Split(options, ","), name) }

// checkEnum is for fields whose tag lists the values.
func (v Value) checkEnum(options string) error {
	for _, option := range strings.Split(options, ",") {
		list, is := strings.CutPrefix(option, "enum=")
		if is && v.Kind() == String && !slices.Contains(strings.Split(list, "|"), v.node.text) {
			return v.NotAccepted()
		}
	}
	return nil
}

// StrOrNull is a string or null, where null means something else than nothing.
type StrOrNull struct {
	Null bool
	Str  string
}

// DecodeQMP reads either.
func (s *StrOrNull) DecodeQMP(v Value) error {
	switch v.Kind() {
	case Null:
		*s = StrOrNull{Null: true}
		return nil
	case String:
		*s = StrOrNull{}
		return v.Decode(&s.Str)
	}
	return v.WrongType("StrOrNull")
}
