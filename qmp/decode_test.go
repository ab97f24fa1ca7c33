package qmp

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// driver is an enumeration.
type driver string

func (driver) Values() []string { return []string{"null-co", "raw"} }

// shared is what all nodes have.
type shared struct {
	Driver   driver `qmp:"driver"`
	NodeName string `qmp:"node-name,optional"`
	Discard  string `qmp:"discard,optional,enum=ignore|unmap"`
	Cache    *struct {
		Direct bool `qmp:"direct,optional"`
	} `qmp:"cache"`
}

// options is a union: what it holds beside shared depends on the driver.
type options struct {
	shared
	Null *nullOptions
	Raw  *rawOptions
}

type nullOptions struct {
	Size *int64 `qmp:"size"`
}

type rawOptions struct {
	File   ref     `qmp:"file"`
	Offset *uint64 `qmp:"offset"`
}

func (o *options) DecodeQMP(v Value) error {
	rest, err := v.Take(&o.shared)
	if err != nil {
		return err
	}
	if o.Driver == "raw" {
		o.Raw = new(rawOptions)
		return rest.Decode(o.Raw)
	}
	o.Null = new(nullOptions)
	return rest.Decode(o.Null)
}

// ref is an alternate: the name of a node, or a node.
type ref struct {
	Name string
	Node *options
}

func (r *ref) DecodeQMP(v Value) error {
	switch v.Kind() {
	case String:
		return v.Decode(&r.Name)
	case Object:
		r.Node = new(options)
		return v.Decode(r.Node)
	}
	return v.WrongType("BlockdevRef")
}

type everything struct {
	Int    *int64          `qmp:"int"`
	Uint   *uint64         `qmp:"uint"`
	Small  *uint32         `qmp:"small"`
	Tiny   *int8           `qmp:"tiny"`
	Float  *float64        `qmp:"float"`
	Bool   *bool           `qmp:"bool"`
	Text   *string         `qmp:"text"`
	List   []int           `qmp:"list,optional"`
	Texts  []string        `qmp:"texts,optional"`
	Raw    json.RawMessage `qmp:"raw,optional"`
	Value  Value           `qmp:"value,optional"`
	Thread *StrOrNull      `qmp:"thread"`
	Nodes  []options       `qmp:"nodes,optional"`
	Ours   string
}

// Goal: arguments are checked as strictly as QEMU does, with its words. Method: a table of JSON and errors.
func TestDecodeErrors(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`1`, "Invalid parameter type for 'null', expected: object"},
		{`{"bogus":1}`, "Parameter 'bogus' is unexpected"},
		{`{"Ours":"x"}`, "Parameter 'Ours' is unexpected"},
		{`{"int":"1"}`, "Invalid parameter type for 'int', expected: integer"},
		{`{"int":1.0}`, "Invalid parameter type for 'int', expected: integer"},
		{`{"int":1e3}`, "Invalid parameter type for 'int', expected: integer"},
		{`{"int":null}`, "Invalid parameter type for 'int', expected: integer"},
		{`{"int":9223372036854775808}`, "Invalid parameter type for 'int', expected: integer"},
		{`{"uint":-1}`, "Parameter 'uint' expects uint64"},
		{`{"uint":18446744073709551616}`, "Parameter 'uint' expects uint64"},
		{`{"uint":true}`, "Parameter 'uint' expects uint64"},
		{`{"small":4294967296}`, "Parameter 'small' expects uint32_t"},
		{`{"small":-1}`, "Parameter 'small' expects uint32_t"},
		{`{"small":"1"}`, "Parameter 'small' expects uint64"},
		{`{"tiny":128}`, "Parameter 'tiny' expects int8_t"},
		{`{"float":"1"}`, "Invalid parameter type for 'float', expected: number"},
		{`{"float":1e999}`, "Invalid parameter type for 'float', expected: number"},
		{`{"bool":"on"}`, "Invalid parameter type for 'bool', expected: boolean"},
		{`{"text":["x"]}`, "Invalid parameter type for 'text', expected: string"},
		{`{"list":{}}`, "Invalid parameter type for 'list', expected: array"},
		{`{"list":[1,"x"]}`, "Invalid parameter type for 'list[1]', expected: integer"},
		{`{"texts":["x",2]}`, "Invalid parameter type for 'texts[1]', expected: string"},
		{`{"thread":1}`, "Invalid parameter type for 'thread', expected: StrOrNull"},
		{`{"nodes":[{}]}`, "Parameter 'nodes[0].driver' is missing"},
		{`{"nodes":[1]}`, "Invalid parameter type for 'nodes[0]', expected: object"},
		{`{"nodes":[{"driver":"nosuch"}]}`, "Parameter 'driver' does not accept value 'nosuch'"},
		{`{"nodes":[{"driver":1}]}`, "Invalid parameter type for 'nodes[0].driver', expected: string"},
		{`{"nodes":[{"driver":"null-co","discard":"x"}]}`, "Parameter 'discard' does not accept value 'x'"},
		{`{"nodes":[{"driver":"null-co","bogus":1,"cache":{"direct":1}}]}`,
			"Invalid parameter type for 'nodes[0].cache.direct', expected: boolean"},
		{`{"nodes":[{"driver":"null-co","cache":{"bogus":1}}]}`, "Parameter 'nodes[0].cache.bogus' is unexpected"},
		{`{"nodes":[{"driver":"null-co","file":"x"}]}`, "Parameter 'nodes[0].file' is unexpected"},
		{`{"nodes":[{"driver":"raw"}]}`, "Parameter 'nodes[0].file' is missing"},
		{`{"nodes":[{"driver":"raw","file":1}]}`, "Invalid parameter type for 'file', expected: BlockdevRef"},
		{`{"nodes":[{"driver":"raw","file":{"driver":"null-co","size":"x"}}]}`,
			"Invalid parameter type for 'nodes[0].file.size', expected: integer"},
		{`{"int":1}{}`, "Expecting at most one JSON value"},
		{`{"int":1`, "JSON parse error, premature EOI"},
		{`{"int":[}`, "JSON parse error, expecting value"},
		{`{"string":"x`, `JSON parse error, stray '"x'`},
		{`-`, "JSON parse error, stray '-'"},
		{`{},`, "Expecting at most one JSON value"},
		{``, "Expecting a JSON value"},
		{`{"int":01}`, "JSON parse error, stray '01'"},
	} {
		err := Decode([]byte(c.json), &everything{})
		require.EqualError(t, err, c.want, c.json)
		require.Equal(t, GenericError, ErrorOf(err).Class)
	}
}

// Goal: what is right arrives. Method: every kind of field, at its limits.
func TestDecode(t *testing.T) {
	var got everything
	require.NoError(t, Decode([]byte(`{'int':-9223372036854775808, 'uint':18446744073709551615, "small":4294967295, "tiny":-128,
		"float":1.5, "bool":true, "text":"x", "list":[1,2], "raw":{'a':[1.50,null]}, "value":[true],
		"thread":null, "nodes":[{"driver":"raw","offset":7,"file":{"driver":"raw","file":"name","cache":{}}}]}`), &got))
	require.EqualValues(t, -1<<63, *got.Int)
	require.EqualValues(t, uint64(1<<64-1), *got.Uint)
	require.EqualValues(t, uint32(1<<32-1), *got.Small)
	require.EqualValues(t, -128, *got.Tiny)
	require.EqualValues(t, 1.5, *got.Float)
	require.True(t, *got.Bool)
	require.Equal(t, "x", *got.Text)
	require.Equal(t, []int{1, 2}, got.List)
	require.Nil(t, got.Texts)
	require.Equal(t, `{"a":[1.50,null]}`, string(got.Raw))
	require.Equal(t, Array, got.Value.Kind())
	require.Equal(t, "value[0]", got.Value.Elements()[0].Path())
	require.Equal(t, StrOrNull{Null: true}, *got.Thread)
	require.EqualValues(t, 7, *got.Nodes[0].Raw.Offset)
	require.Equal(t, "name", got.Nodes[0].Raw.File.Node.Raw.File.Name)
	require.NotNil(t, got.Nodes[0].Raw.File.Node.Cache)
}

// Goal: a command without arguments is one with none. Method: the zero Value against structs with and without needs.
func TestZeroValue(t *testing.T) {
	require.NoError(t, Value{}.Decode(&everything{}))
	require.EqualError(t, Value{}.Decode(&rawOptions{}), "Parameter 'file' is missing")
	require.Equal(t, "{}", string(Value{}.Raw()))
}

// Goal: an error keeps its class under words that others put around it. Method: wrapped and foreign errors.
func TestErrorOf(t *testing.T) {
	inner := &Error{DeviceNotActive, "no job"}
	require.Equal(t, &Error{DeviceNotActive, "cancel: no job"}, ErrorOf(errors.Join(errorsWrap{"cancel: ", inner})))
	require.Equal(t, &Error{GenericError, "plain"}, ErrorOf(errors.New("plain")))
}

type errorsWrap struct {
	text string
	err  error
}

func (e errorsWrap) Error() string { return e.text + e.err.Error() }
func (e errorsWrap) Unwrap() error { return e.err }

// Goal: what we write can be read by anybody, whatever is in it. Method: strings that JSON knows and QEMU's parser refuses.
func TestOutputTakesAnyString(t *testing.T) {
	for _, text := range []string{"\uffff", "\ufdd0", "\x00\x7f\"\\", "bad \xff\xfe utf-8", "<&>\u2028"} {
		n, err := nodeOf(text)
		require.NoError(t, err)
		written := plainStyle.appendNode(nil, n, 0)
		var back string
		require.NoError(t, json.Unmarshal(written, &back))
		want, _ := json.Marshal(text)
		var through string
		require.NoError(t, json.Unmarshal(want, &through))
		require.Equal(t, through, back)
	}
}

// Goal: what events are made of becomes the same without text in between as through encoding/json. Method: a map with all there is, and the same
// with something in it that goes through encoding/json.
func TestPlainNodesAreWhatJSONMakes(t *testing.T) {
	data := map[string]any{"z": 1, "a": int64(-1 << 62), "b\xff\xfe": "<\xff\xfe>", "yes": true, "inner": map[string]any{"none": map[string]any{}}}
	plain, ok := plainNode(data)
	require.True(t, ok)
	data["slow"] = 1.5
	slow, ok := plainNode(data)
	require.False(t, ok)
	require.Empty(t, slow)
	through, err := nodeOf(data)
	require.NoError(t, err)
	through.members = slices.DeleteFunc(through.members, func(m member) bool { return m.name == "slow" })
	require.Equal(t, appendCompact(nil, through), appendCompact(nil, plain))
}
