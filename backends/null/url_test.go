package null

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: names of null disks are read exactly, and errors name the parameter and the remedy; method: a table.
func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		name string
		want Options
		err  string
	}{
		{name: "null-co://"},
		{name: "null-co://?"},
		{name: "null-co://?size=4096", want: Options{SizeBytes: 4096}},
		{name: "null-co://?size=1G&read-zeroes=on", want: Options{SizeBytes: 1 << 30, ReadZeroes: true}},
		{name: "null-co://?size=7e", want: Options{SizeBytes: 7 << 60}},
		{name: "null-co://?latency-ns=1000000&read-zeroes=off", want: Options{LatencyNS: 1e6}},
		{name: "null-co://?size=8E", err: "size=8E: give bytes"},
		{name: "null-co://?size=", err: "size=: give bytes"},
		{name: "null-co://?size=0", err: "size=0: give bytes"},
		{name: "null-co://?size=-1", err: "size=-1: give bytes"},
		{name: "null-co://?size=1X", err: "size=1X: give bytes"},
		{name: "null-co://?size=1&size=2", err: "size is given twice"},
		{name: "null-co://?latency-ns=-1", err: "latency-ns=-1: give nanoseconds"},
		{name: "null-co://?latency-ns=1ms", err: "latency-ns=1ms: give nanoseconds"},
		{name: "null-co://?read-zeroes=yes", err: "read-zeroes=yes: use on or off"},
		{name: "null-co://?sise=1G", err: `unknown parameter "sise": use size, latency-ns or read-zeroes`},
		{name: "null-co://host", err: `but "host" does`},
		{name: "null-co://?size=%zz", err: "invalid URL escape"},
		{name: "nbd://", err: "begins with null-co://"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := ParseURL(c.name)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.want, o)
		})
	}
}

// Goal: no name makes the parser panic or give a disk of no or of negative size; method: fuzzing.
func FuzzParseURL(f *testing.F) {
	f.Add("null-co://?size=1G&latency-ns=5&read-zeroes=on")
	f.Add("null-co://?size=9223372036854775807")
	f.Fuzz(func(t *testing.T, name string) {
		o, err := ParseURL(name)
		if err == nil {
			require.Positive(t, Open(o).Size())
			require.GreaterOrEqual(t, o.LatencyNS, int64(0))
		}
	})
}
