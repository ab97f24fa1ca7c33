package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: a JSON object gives the same keys as the form with commas. Method: a table of objects with nesting, arrays and all
// kinds of values.
func TestKeysOfJSON(t *testing.T) {
	for in, want := range map[string]map[string]string{
		`{}`:                        {},
		`{"driver":"raw"}`:          {"driver": "raw"},
		`{"a":{"b":{"c":"d"}}}`:     {"a.b.c": "d"},
		`{"a.b":"c"}`:               {"a.b": "c"},
		`{"n":4096,"y":true}`:       {"n": "4096", "y": "on"},
		`{"l":["x",{"y":false}]}`:   {"l.0": "x", "l.1.y": "off"},
		`{"n":9223372036854775807}`: {"n": "9223372036854775807"},
		`{"a":null,"driver":1}`:     {"a": ""},
	} {
		set, err := keysOfJSON(in)
		require.NoError(t, err, in)
		require.Equal(t, want, maps.Collect(set.All()), in)
	}
	for _, in := range []string{"", "[]", `"x"`, "{", `{} {}`, strings.Repeat(`{"a":`, 2000)} {
		_, err := keysOfJSON(in)
		require.Error(t, err, in)
	}
}

// brokenJSON is broken in every way that JSON can be, or is no object, or names no disk.
var brokenJSON = []string{
	"", " ", "{", "}", "{}", "[", "[1,", "[1,]", "[]", `"x"`, `"x`, "'x'", "'x", "null", "true", "tru", "1", "-", "01", "1.", "@", "%d", "//x",
	`{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a" 1}`, `{1:2}`, `{"a":1 "b":2}`, `{a:1}`, `{"a":nul}`, `{"a":null}`, `{"a":01}`, `{"a":1.}`, `{"a":1e}`,
	`{"a":+1}`, `{"a":"\q"}`, `{"a":"\u12"}`, `{"a":"\u0000"}`, `{"a":"\ud800"}`, "{\"a\":\"\t\"}", `{"a":1,"a":2}`, "{}{}", "{} {}", "{}x", "{},", `{"a":[1 2]}`, `{"a":[}`,
	`{"a":]}`, `{"a":{}`, `{"":1}`, `{"a..b":1}`, `{"a":1e999}`, `{"driver":1}`, `{"driver":null}`, `{"driver":["raw"]}`, `{"driver":"raw","file":5}`, `{"driver":"raw","file":[]}`,
	`{"driver":"raw","file":{"driver":"foo"}}`, `{'driver':'foo'}`, strings.Repeat("[", 1100), strings.Repeat(`{"a":`, 1100),
}

// Goal: broken JSON is refused as by QEMU's programs, in the same words. Method: a table, at each place that takes JSON; both programs
// run.
func TestBrokenJSON(t *testing.T) {
	for name, door := range map[string]struct {
		ours, stock string
		args        func(text string) []string
	}{
		"json:":      {qemuName, stockQEMU, func(text string) []string { return []string{"-k", "DIR/s", "json:" + text} }},
		"json: raw":  {qemuName, stockQEMU, func(text string) []string { return []string{"-k", "DIR/s", "-f", "raw", "json:" + text} }},
		"object":     {qemuName, stockQEMU, func(text string) []string { return []string{"--object", text, "-k", "DIR/s", "missing"} }},
		"blockdev":   {qsdName, stockQSD, func(text string) []string { return []string{"--blockdev", text, "--chardev", "bogus"} }},
		"qsd object": {qsdName, stockQSD, func(text string) []string { return []string{"--object", text, "--chardev", "bogus"} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, dir := asProgram(t, door.ours), sameDir(t)
			for n := 0; n < len(brokenJSON); n += qcowtest.Stride {
				text := brokenJSON[n]
				want := run(t, dir, door.stock, door.args(text)...)
				require.Equal(t, want, run(t, dir, ours, door.args(text)...), text)
				require.Equal(t, 1, want.Status, text)
			}
		})
	}
}
