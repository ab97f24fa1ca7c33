package control

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/qmp"
)

// Goal: names are looked at before anything is opened, inner ones too, so that a description that cannot do touches no file. Method: descriptions with
// one mistake each, over a driver that tells when it is opened; and one without a mistake.
func TestNamesAreReadBeforeFilesAreOpened(t *testing.T) {
	h := newHouse(t)
	o := h.monitor()
	opens, gate := 0, h.plane.options.Drivers["gate"].Open
	h.plane.options.Drivers["file"] = Driver{Open: func(o *Opening) (blockcore.Driver, error) {
		opens++
		return gate(o)
	}}
	o.must("blockdev-add", `{"driver":"null-co","node-name":"there"}`)
	for options, message := range map[string]string{
		`{"driver":"file"}`: "'node-name' must be specified for the root node",
		`{"driver":"pass","file":{"driver":"file","node-name":"there"}}`:                   "'node-name' must be specified for the root node",
		`{"driver":"pass","file":{"driver":"nosuch"}}`:                                     "Parameter 'driver' does not accept value 'nosuch'",
		`{"driver":"pass","file":{}}`:                                                      "Parameter 'file.driver' is missing",
		`{"driver":"pass","file":5}`:                                                       "Invalid parameter type for 'file', expected: BlockdevRef",
		`{"driver":"pass","node-name":"there","file":{"driver":"file"}}`:                   "Duplicate nodes with node-name='there'",
		`{"driver":"pass","node-name":"new","file":{"driver":"file","node-name":"there"}}`: "Duplicate nodes with node-name='there'",
		`{"driver":"pass","node-name":"new","file":{"driver":"file","node-name":"new"}}`:   "Duplicate nodes with node-name='new'",
		`{"driver":"pass","node-name":"9","file":{"driver":"file"}}`:                       "Invalid node-name: '9'",
		`{"driver":"pass","node-name":"new","file":{"driver":"file","node-name":"9"}}`:     "Invalid node-name: '9'",
		`{"driver":"pass","node-name":7,"file":{"driver":"file"}}`:                         "Invalid parameter type for 'node-name', expected: string",
	} {
		err := o.refused("blockdev-add", options, "")
		require.EqualError(t, err, message, options)
	}
	deep := `{"driver":"file","node-name":"there"}`
	for range nestingMax {
		deep = `{"driver":"pass","file":` + deep + `}`
	}
	o.refused("blockdev-add", `{"driver":"pass","node-name":"new","file":`+deep+`}`, "nodes are nested more than 64 deep")
	require.Zero(t, opens)
	o.must("blockdev-add", `{"driver":"pass","node-name":"new","file":{"driver":"file","node-name":"below"}}`)
	require.Equal(t, 1, opens)
	require.NotNil(t, h.graph.Node("below"))
}

// Goal: looking for names takes nothing for granted. Method: values that describe no node.
func TestNamesInOddValues(t *testing.T) {
	h := newHouse(t)
	for _, text := range []string{`7`, `null`, `[]`, `{}`, `{"driver":[],"node-name":{}}`, `{"driver":"x","node-name":null,"file":[{"driver":"y","node-name":"9"}]}`} {
		v, err := qmp.ParseValue([]byte(text))
		require.NoError(t, err)
		require.NoError(t, h.plane.checkNamesIn(v, map[string]bool{}, 0), text)
	}
}
