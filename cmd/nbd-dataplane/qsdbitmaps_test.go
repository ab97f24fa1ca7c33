package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
)

// longName is longer than the name of a bitmap may be.
var longName = strings.Repeat("n", format.BitmapNameMax+1)

// bitmapScript is sent to both daemons. A line with a "!" is run by a client.
const bitmapScript = `
	! qemu-img create -q -f qcow2 a.qcow2 10M
	! qemu-img bitmap --add a.qcow2 p0
	! qemu-img bitmap --add --disable -g 4096 a.qcow2 p1
	! qemu-img create -q -f qcow2 base.qcow2 5M
	! qemu-img bitmap --add --disable base.qcow2 bb
	! qemu-io -f qcow2 -c "write -q 1M 1M" a.qcow2
	! qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2 10M
	! qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 10M
	blockdev-add {"driver":"qcow2","node-name":"a","file":{"driver":"file","filename":"DIR/a.qcow2"},"discard":"unmap"}
	blockdev-add {"driver":"qcow2","node-name":"top","file":{"driver":"file","filename":"DIR/top.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"old","file":{"driver":"file","filename":"DIR/old.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"ro","read-only":true,"file":{"driver":"file","filename":"DIR/base.qcow2"}}
	blockdev-add {"driver":"qcow2","node-name":"died","file":{"driver":"file","filename":"DIR/died.qcow2"}}
	block-dirty-bitmap-clear {"node":"died","name":"d"}
	block-dirty-bitmap-enable {"node":"died","name":"d"}
	block-dirty-bitmap-merge {"node":"died","target":"e","bitmaps":["d"]}
	block-dirty-bitmap-merge {"node":"died","target":"d","bitmaps":["e"]}
	block-dirty-bitmap-add {"node":"died","name":"d"}
	query-named-block-nodes {"flat":true}
	block_resize {"node-name":"died","size":2097152}
	block-dirty-bitmap-remove {"node":"died","name":"d"}
	block_resize {"node-name":"died","size":2097152}
	query-named-block-nodes {"flat":true}
	blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img"}
	block-dirty-bitmap-add {"node":"a","name":"x"}
	block-dirty-bitmap-add {"node":"a","name":"x"}
	block-dirty-bitmap-add {"node":"a","name":""}
	block-dirty-bitmap-add {"node":"nope","name":"x"}
	block-dirty-bitmap-add {"node":"a","name":"y","granularity":1000}
	block-dirty-bitmap-add {"node":"a","name":"y","granularity":256}
	block-dirty-bitmap-add {"node":"a","name":"y","granularity":0}
	block-dirty-bitmap-add {"node":"a","name":"y","granularity":2147483648}
	block-dirty-bitmap-add {"node":"a","name":"z","granularity":4294967295}
	block-dirty-bitmap-add {"node":"a","name":"z","granularity":4294967296}
	block-dirty-bitmap-add {"node":"a","name":"p2","persistent":true}
	block-dirty-bitmap-add {"node":"a","name":"p3","persistent":true,"disabled":true,"granularity":512}
	block-dirty-bitmap-add {"node":"f","name":"x","persistent":true}
	block-dirty-bitmap-add {"node":"f","name":"x","disabled":true}
	block-dirty-bitmap-add {"node":"old","name":"x","persistent":true}
	block-dirty-bitmap-add {"node":"old","name":"x"}
	block-dirty-bitmap-add {"node":"a","name":"LONG"}
	block-dirty-bitmap-add {"node":"a","name":"LONG","persistent":true}
	block-dirty-bitmap-add {"node":"ro","name":"x"}
	block-dirty-bitmap-clear {"node":"ro","name":"bb"}
	block-dirty-bitmap-remove {"node":"ro","name":"bb"}
	block-dirty-bitmap-merge {"node":"ro","target":"bb","bitmaps":["x"]}
	block-dirty-bitmap-enable {"node":"ro","name":"bb"}
	block-dirty-bitmap-disable {"node":"ro","name":"bb"}
	block-dirty-bitmap-clear {"node":"a","name":"nope"}
	block-dirty-bitmap-clear {"node":"nope","name":"x"}
	block-dirty-bitmap-enable {"node":"nope","name":"x"}
	block-dirty-bitmap-remove {"node":"a","name":"p1"}
	block-dirty-bitmap-remove {"node":"a","name":"p1"}
	block-dirty-bitmap-add {"node":"a","name":"fine","granularity":512}
	block-dirty-bitmap-merge {"node":"a","target":"fine","bitmaps":["p0",{"node":"a","name":"x"},"fine"]}
	block-dirty-bitmap-merge {"node":"a","target":"nope","bitmaps":["p0"]}
	block-dirty-bitmap-merge {"node":"a","target":"fine","bitmaps":["x","nope"]}
	block-dirty-bitmap-merge {"node":"a","target":"fine","bitmaps":[{"node":"nope","name":"x"}]}
	block-dirty-bitmap-merge {"node":"a","target":"fine","bitmaps":[{"node":"ro","name":"bb"}]}
	query-named-block-nodes {"flat":true}
	nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
	block-export-add {"type":"nbd","id":"e","node-name":"a","bitmaps":["nope"]}
	block-export-add {"type":"nbd","id":"e","node-name":"a","bitmaps":["p0"]}
	block-export-add {"type":"nbd","id":"e","node-name":"a","bitmaps":["fine",{"node":"a","name":"p0"}],"writable":true,"name":"e"}
	block-export-add {"type":"nbd","id":"e1","node-name":"a","bitmaps":["fine"],"writable":true,"name":"q"}
	block-export-add {"type":"nbd","id":"e1","node-name":"a","bitmaps":[{"node":"nope","name":"x"}],"writable":true,"name":"q"}
	block-export-add {"type":"nbd","id":"e1","node-name":"a","bitmaps":[{"node":"a","name":"nope"}],"writable":true,"name":"q"}
	block-export-add {"type":"nbd","id":"e2","node-name":"top","bitmaps":["bb"],"name":"below"}
	nbd-server-add {"device":"a","bitmap":"nope","writable":true,"name":"q"}
	nbd-server-add {"device":"a","bitmap":"x","writable":true,"name":"q"}
	! nbdinfo --map=qemu:dirty-bitmap:fine nbd+unix:///e?socket=DIR/s
	! qemu-io -f raw -c "write -q 0 1" -c "write -q -z 5M 1000" -c "discard -q 7M 64k" nbd+unix:///e?socket=DIR/s
	! nbdinfo --map=qemu:dirty-bitmap:fine nbd+unix:///e?socket=DIR/s
	! nbdinfo --map=qemu:dirty-bitmap:p0 nbd+unix:///e?socket=DIR/s
	! nbdinfo --map=qemu:dirty-bitmap:x nbd+unix:///q?socket=DIR/s
	! nbdinfo --map=qemu:dirty-bitmap:bb nbd+unix:///below?socket=DIR/s
	! nbdinfo --map nbd+unix:///below?socket=DIR/s
	! qemu-img map --output=json --image-opts driver=nbd,export=e,server.type=unix,server.path=DIR/s,x-dirty-bitmap=qemu:dirty-bitmap:p0
	block-dirty-bitmap-remove {"node":"a","name":"fine"}
	block-dirty-bitmap-clear {"node":"a","name":"fine"}
	block-dirty-bitmap-enable {"node":"a","name":"fine"}
	block-dirty-bitmap-disable {"node":"a","name":"fine"}
	block-dirty-bitmap-merge {"node":"a","target":"fine","bitmaps":["p2"]}
	block-dirty-bitmap-merge {"node":"a","target":"p2","bitmaps":["fine"]}
	query-named-block-nodes {"flat":true}
	block-export-del {"id":"e"}
	await BLOCK_EXPORT_DELETED
	transaction {"actions":[{"type":"block-dirty-bitmap-add","data":{"node":"a","name":"t"}},{"type":"block-dirty-bitmap-add","data":{"node":"a","name":"t"}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-add","data":{"node":"a","name":"t"}},{"type":"block-dirty-bitmap-merge","data":{"node":"a","target":"t","bitmaps":["p0"]}},{"type":"block-dirty-bitmap-clear","data":{"node":"a","name":"p0"}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-clear","data":{"node":"a","name":"t"}},{"type":"block-dirty-bitmap-disable","data":{"node":"a","name":"t"}},{"type":"abort","data":{}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-remove","data":{"node":"a","name":"t"}},{"type":"block-dirty-bitmap-clear","data":{"node":"a","name":"t"}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-remove","data":{"node":"a","name":"t"}},{"type":"abort","data":{}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-merge","data":{"node":"a","target":"p2","bitmaps":["t"]}},{"type":"abort","data":{}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-clear","data":{"node":"a","name":"nope"}}]}
	transaction {"actions":[{"type":"block-dirty-bitmap-bogus","data":{"node":"a","name":"nope"}}]}
	query-named-block-nodes {"flat":true}
	transaction {"actions":[{"type":"block-dirty-bitmap-remove","data":{"node":"a","name":"t"}},{"type":"block-dirty-bitmap-enable","data":{"node":"a","name":"p3"}}]}
	query-named-block-nodes {"flat":true}
	block-export-del {"id":"q"}
	await BLOCK_EXPORT_DELETED
	block_resize {"node-name":"a","size":12582912}
	blockdev-reopen {"options":[{"driver":"qcow2","node-name":"a","read-only":true,"file":{"driver":"file","filename":"DIR/a.qcow2"}}]}
	block-dirty-bitmap-clear {"node":"a","name":"p0"}
	! qemu-img info -U -f qcow2 a.qcow2
	blockdev-reopen {"options":[{"driver":"qcow2","node-name":"a","file":{"driver":"file","filename":"DIR/a.qcow2"}}]}
	block-dirty-bitmap-clear {"node":"a","name":"p0"}
	query-named-block-nodes {"flat":true}
	blockdev-del {"node-name":"a"}
	! qemu-img check a.qcow2
	! qemu-img info a.qcow2
`

// told leaves out what depends on where clusters lie, which is no matter of bitmaps.
func told(out string) string {
	var b strings.Builder
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "disk size") && !strings.Contains(line, "Image end offset") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// makeInUse makes an image with a bitmap "d" whose user has died, and one that is as it should be.
func makeInUse(t *testing.T, s *steered) {
	t.Helper()
	for _, line := range []string{"qemu-img create -q -f qcow2 died.qcow2 1M", "qemu-img bitmap --add died.qcow2 d", "qemu-img bitmap --add died.qcow2 e"} {
		require.Equal(t, "<nil>", s.client(line))
	}
	path := filepath.Join(s.dir, "died.qcow2")
	p, err := os.ReadFile(path)
	require.NoError(t, err)
	h, err := format.Parse(p, format.ForUse)
	require.NoError(t, err)
	ext, err := format.ParseBitmaps(h.Extension(format.ExtensionBitmaps).Data, h.Geometry())
	require.NoError(t, err)
	directory := p[ext.DirectoryOffset : int64(ext.DirectoryOffset)+int64(ext.DirectoryBytes)]
	all, err := format.ParseBitmapDirectory(directory, ext, h.Geometry(), int64(h.SizeBytes))
	require.NoError(t, err)
	all[0].Flags |= format.BitmapInUse
	copy(directory, format.MarshalBitmapDirectory(all))
	require.NoError(t, os.WriteFile(path, p, 0o600))
}

// bitmapsOnly leaves of query-named-block-nodes what this is about.
func bitmapsOnly(t *testing.T, answer string) string {
	t.Helper()
	var nodes []struct {
		Name    string           `json:"node-name"`
		Bitmaps []map[string]any `json:"dirty-bitmaps"`
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &nodes))
	var b strings.Builder
	for _, n := range nodes {
		if !strings.HasPrefix(n.Name, "#") {
			fmt.Fprintf(&b, "%s: %v\n", n.Name, n.Bitmaps)
		}
	}
	return b.String()
}

// client runs a line that is for a client.
func (s *steered) client(line string) string {
	words := strings.Split(line, `"`)
	var args []string
	for n, text := range words {
		if n%2 == 1 {
			args = append(args, text)
		} else {
			args = append(args, strings.Fields(text)...)
		}
	}
	out, err := s.tool(args[0], args[1:]...)
	return fmt.Sprint(told(strings.ReplaceAll(out, s.dir, "DIR")), err)
}

// Goal: dirty bitmaps are made, changed, exported and kept as QEMU does, and refused in its words. Method: a script with clients in between, at both
// daemons; what the monitor says, what clients see and what is in the image afterwards.
func TestBitmapsAsQEMU(t *testing.T) {
	work := func(program string) string {
		s := steer(t, program)
		makeInUse(t, s)
		var b strings.Builder
		for line := range strings.Lines(strings.ReplaceAll(bitmapScript, "LONG", longName)) {
			line = strings.TrimSpace(line)
			if line == "" {
				continue
			}
			answer := ""
			if command, isClient := strings.CutPrefix(line, "! "); isClient {
				answer = s.client(command)
			} else if answer = s.do(line); strings.HasPrefix(line, "query-named") {
				answer = bitmapsOnly(t, answer)
			}
			fmt.Fprintf(&b, "%s\n\t%s\n", line, answer)
		}
		fmt.Fprintf(&b, "%d\n", s.end(syscall.SIGTERM).Status)
		return b.String()
	}
	require.Equal(t, work(stockQSD), work(asProgram(t, qsdName)))
}
