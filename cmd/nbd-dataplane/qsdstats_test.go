package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// statsScript asks for the statistics of nodes that nobody has used.
const statsScript = `
	query-blockstats
	query-blockstats {"query-nodes":1}
	query-blockstats {"bogus":true}
	blockdev-add {"driver":"null-co","node-name":"n","size":1048576}
	query-blockstats {"query-nodes":true}
	object-add {"qom-type":"throttle-group","id":"g"}
	blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","discard":"unmap"}
	blockdev-add {"driver":"throttle","node-name":"t","throttle-group":"g","file":"f"}
	blockdev-add {"driver":"copy-on-read","node-name":"c","file":"t"}
	blockdev-add {"driver":"blkdebug","node-name":"b","image":"c"}
	blockdev-add {"driver":"raw","node-name":"r","file":"n"}
	query-blockstats {"query-nodes":true}
	nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
	block-export-add {"type":"nbd","id":"e","node-name":"b"}
	query-blockstats
	query-blockstats {"query-nodes":false}
	query-blockstats {"query-nodes":true}
`

// Goal: statistics have the form and the members of qemu-storage-daemon's. Method: a script is sent to both, before there is anything to
// count.
func TestStatsAsQEMU(t *testing.T) {
	want := transcript(t, stockQSD, nil, statsScript)
	require.Equal(t, want, transcript(t, asProgram(t, qsdName), nil, statsScript))
}

// stats asks for the statistics of a node.
func (s *steered) stats(name string) (stats, specific map[string]any) {
	s.t.Helper()
	var list []struct {
		Name     string         `json:"node-name"`
		Stats    map[string]any `json:"stats"`
		Specific map[string]any `json:"driver-specific"`
	}
	require.NoError(s.t, json.Unmarshal([]byte(s.do(`query-blockstats {"query-nodes":true}`)), &list))
	for _, n := range list {
		if n.Name == name {
			return n.Stats, n.Specific
		}
	}
	s.t.Fatalf("no statistics of %s", name)
	return nil, nil
}

// Goal: what qemu-storage-daemon counts at nodes we count alike: the highest offset written, and discards handed on. Method: the same
// requests of qemu-io to both.
func TestNodesCountAsQEMU(t *testing.T) {
	var want [2]map[string]any
	for n, program := range []string{stockQSD, asProgram(t, qsdName)} {
		s := steer(t, program)
		s.ok(
			`blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img","discard":"unmap"}`,
			`blockdev-add {"driver":"raw","node-name":"r","file":"f","discard":"unmap"}`,
			`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
			`block-export-add {"type":"nbd","id":"e","node-name":"r","name":"e","writable":true}`)
		got := map[string]any{}
		for _, command := range []string{"write 0 64k", "discard 128k 64k", "write -z 256k 4k", "write -z -u 300k 4k", "read 400k 4k", "discard 0 4k", "flush"} {
			_, err := s.tool("qemu-io", "-f", "raw", "-d", "unmap", "-c", command, "nbd+unix:///e?socket=DIR/s")
			require.NoError(t, err)
			for _, node := range []string{"f", "r"} {
				stats, specific := s.stats(node)
				got[node+" after "+command] = []any{stats["wr_highest_offset"], specific}
			}
		}
		want[n] = got
	}
	require.Equal(t, want[0], want[1])
}

// Goal: failures and times are told. Method: a disk that fails a read, a write and a discard at one place, and a flush, and does the rest;
// qemu-io asks for both kinds.
func TestFailuresAreCounted(t *testing.T) {
	s := steer(t, asProgram(t, qsdName))
	s.ok(
		`blockdev-add {"driver":"null-co","node-name":"n","size":1048576}`,
		`blockdev-add {"driver":"blkdebug","node-name":"b","image":"n","inject-error":[`+
			`{"event":"none","iotype":"read","sector":16},{"event":"none","iotype":"write","sector":16},`+
			`{"event":"none","iotype":"discard","sector":16},{"event":"none","iotype":"flush"}]}`,
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
		`block-export-add {"type":"nbd","id":"e","node-name":"b","name":"e","writable":true}`)
	commands := "read 0 4k,read 8k 4k,write 0 4k,write 8k 4k,discard 0 4k,discard 8k 4k,flush"
	for command := range strings.SplitSeq(commands, ",") {
		_, _ = s.tool("qemu-io", "-f", "raw", "-d", "unmap", "-c", command, "nbd+unix:///e?socket=DIR/s")
	}
	stats, _ := s.stats("b")
	for _, kind := range []string{"rd", "wr", "unmap"} {
		require.EqualValues(t, 1, stats[kind+"_operations"], kind)
		require.EqualValues(t, 4096, stats[kind+"_bytes"], kind)
		require.EqualValues(t, 1, stats["failed_"+kind+"_operations"], kind)
		require.Positive(t, stats[kind+"_total_time_ns"], kind)
	}
	require.Zero(t, stats["flush_operations"])
	require.Positive(t, stats["failed_flush_operations"])
	require.Positive(t, stats["idle_time_ns"])
	below, _ := s.stats("n")
	require.Zero(t, below["failed_rd_operations"], "what a filter fails does not reach what is below")
}
