package qmp

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/keyval"
)

// optionsOf is a command line as a value.
func optionsOf(t *testing.T, text string) (Value, error) {
	t.Helper()
	set, err := keyval.Parse(text, "")
	require.NoError(t, err)
	return ParseOptions(set.All())
}

// Goal: a command line reaches the same structs as JSON does. Method: each kind of field, written as texts.
func TestParseOptions(t *testing.T) {
	v, err := optionsOf(t, "int=-0x10,uint=18446744073709551615,float=1.5,bool=on,text=17,list.1=2,list.0=1,texts.0=x,"+
		"thread=t,nodes.0.driver=raw,nodes.0.file.driver=null-co,nodes.0.file.size=1,nodes.0.file.size=2")
	require.NoError(t, err)
	var got everything
	require.NoError(t, v.Decode(&got))
	require.EqualValues(t, -16, *got.Int)
	require.EqualValues(t, uint64(1<<64-1), *got.Uint)
	require.EqualValues(t, 1.5, *got.Float)
	require.True(t, *got.Bool)
	require.Equal(t, "17", *got.Text)
	require.Equal(t, []int{1, 2}, got.List)
	require.Equal(t, []string{"x"}, got.Texts)
	require.Equal(t, "t", got.Thread.Str)
	require.EqualValues(t, 2, *got.Nodes[0].Raw.File.Node.Null.Size)
	v, err = optionsOf(t, "")
	require.NoError(t, err)
	require.NoError(t, v.Decode(&everything{}))
}

// Goal: errors about a command line are QEMU's. Method: a table; the words are those that qemu-storage-daemon prints.
func TestParseOptionsErrors(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{"bogus=1", "Parameter 'bogus' is unexpected"},
		{"int=x", "Parameter 'int' expects integer"},
		{"int=1M", "Parameter 'int' expects integer"},
		{"uint=-1", "Parameter 'uint' expects integer"},
		{"small=4294967296", "Parameter 'small' expects uint32_t"},
		{"bool=maybe", "Parameter 'bool' expects 'on' or 'off'"},
		{"list=1", "Invalid parameter type for 'list', expected: array"},
		{"list.0=1,list.1=x", "Parameter 'list.1' expects integer"},
		{"list.0=1,list.2=x", "Parameter 'list.1' missing"},
		{"list.0=1,list.x=2", "Parameters 'list.*' used inconsistently"},
		{"int=1,int.x=2", "Parameters 'int.*' used inconsistently"},
		{"int.x=1,int=2", "Parameters 'int.*' used inconsistently"},
		{"nodes.0.driver=nosuch", "Parameter 'driver' does not accept value 'nosuch'"},
		{"nodes.0.driver=raw", "Parameter 'nodes.0.file' is missing"},
		{"nodes.0.driver=raw,nodes.0.file.0=x", "Invalid parameter type for 'file', expected: BlockdevRef"},
		{"nodes.0.driver=raw,nodes.0.file.driver=null-co,nodes.0.file.bogus=1", "Parameter 'nodes.0.file.bogus' is unexpected"},
		{"nodes.0.driver=raw,nodes.0.file.driver=null-co,nodes.0.file.size=x", "Parameter 'nodes.0.file.size' expects integer"},
		{strings.Repeat("a.", nestingMax) + "a=1", "JSON nesting depth limit exceeded"},
	} {
		v, err := optionsOf(t, c.options)
		if err == nil {
			err = v.Decode(&everything{})
		}
		require.EqualError(t, err, c.want, c.options)
	}
}
