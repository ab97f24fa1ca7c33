package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// snapshotScript is sent to qemu-storage-daemon and to ours. A line "sh COMMAND" is a command in the daemon's directory; "snapshots NODE" are those that
// query-named-block-nodes tells of.
const snapshotScript = `
	sh qemu-img create -q -f qcow2 a.qcow2 1M && qemu-io -f qcow2 -c 'write -q -P 1 0 1M' a.qcow2 && cp a.qcow2 b.qcow2 && qemu-img create -q -f raw r.img 1M
	sh qemu-img create -q -f qcow2 -b r.img -F raw over.qcow2
	nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}
	blockdev-add {"driver":"qcow2","node-name":"d0","file":{"driver":"file","filename":"DIR/a.qcow2","node-name":"f0"}}
	blockdev-add {"driver":"qcow2","node-name":"d1","file":{"driver":"file","filename":"DIR/b.qcow2"}}
	blockdev-add {"driver":"raw","node-name":"r0","read-only":true,"file":{"driver":"file","filename":"DIR/r.img"}}
	block_resize {"node-name":"d0","size":1048577}
	block_resize {"node-name":"d0","size":9223372036854775807}
	block-export-add {"type":"nbd","id":"e0","node-name":"d0","writable":true}
	block-export-add {"type":"nbd","id":"e1","node-name":"d1","writable":true}
	snapshots d0
	blockdev-snapshot-internal-sync {"device":"d0","name":""}
	blockdev-snapshot-internal-sync {"device":"nope","name":"x"}
	blockdev-snapshot-internal-sync {"device":"f0","name":"x"}
	blockdev-snapshot-internal-sync {"device":"d0","name":"s1"}
	blockdev-snapshot-internal-sync {"device":"d0","name":"s1"}
	blockdev-snapshot-internal-sync {"device":"d0"}
	sh qemu-io -f raw -c 'write -q -P 2 0 64k' 'nbd+unix:///d0?socket=s'
	blockdev-snapshot-internal-sync {"device":"d0","name":"1"}
	blockdev-snapshot-internal-sync {"device":"d0","name":"s3"}
	snapshots d0
	blockdev-snapshot-delete-internal-sync {"device":"d0"}
	blockdev-snapshot-delete-internal-sync {"device":"d0","name":"zz"}
	blockdev-snapshot-delete-internal-sync {"device":"d0","id":"9"}
	blockdev-snapshot-delete-internal-sync {"device":"d0","id":"1","name":"x"}
	blockdev-snapshot-delete-internal-sync {"device":"r0","name":"x"}
	blockdev-snapshot-delete-internal-sync {"device":"nope","name":"x"}
	blockdev-snapshot-delete-internal-sync {"device":"f0","name":"x"}
	blockdev-snapshot-delete-internal-sync {"device":"d0","id":"","name":""}
	blockdev-snapshot-delete-internal-sync {"device":"d0","name":"1"}
	blockdev-snapshot-delete-internal-sync {"device":"d0","id":"3","name":"s3"}
	snapshots d0
	transaction {"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"t1"}},{"type":"abort","data":{}}]}
	transaction {"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"t1"}},{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"t1"}}]}
	transaction {"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d1","name":"t1"}},{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"s1"}}]}
	snapshots d0
	snapshots d1
	transaction {"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"t1"}},{"type":"blockdev-snapshot-internal-sync","data":{"device":"d1","name":"t1"}}]}
	transaction {"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"t3"}}],"properties":{"completion-mode":"grouped"}}
	snapshots d0
	snapshots d1
	block_resize {"node-name":"r0","size":512}
	blockdev-reopen {"options":[{"driver":"qcow2","node-name":"d0","file":"f0","l2-cache-entry-size":1000}]}
	blockdev-reopen {"options":[{"driver":"qcow2","node-name":"d0","file":"f0","cache-clean-interval":-1}]}
	sh qemu-img create -q -f qcow2 -o data_file=ext.data ext.qcow2 1M
	blockdev-add {"driver":"qcow2","node-name":"x0","file":{"driver":"file","filename":"DIR/ext.qcow2"}}
	blockdev-snapshot-internal-sync {"device":"x0","name":""}
	blockdev-snapshot-internal-sync {"device":"x0","name":"s"}
	blockdev-snapshot-delete-internal-sync {"device":"x0","name":"s"}
	transaction {"actions":[{"type":"blockdev-snapshot-sync","data":{"node-name":"d0","snapshot-file":"DIR/o0.qcow2","snapshot-node-name":"o0"}},{"type":"blockdev-snapshot-internal-sync","data":{"device":"d0","name":"t5"}}]}
	sh rm -f o0.qcow2
	snapshots d0
	change-backing-file {"device":"d0","image-node-name":"d0","backing-file":"x"}
	change-backing-file {"device":"nope","image-node-name":"d0","backing-file":"x"}
	change-backing-file {"device":"d0","image-node-name":"nope","backing-file":"x"}
	change-backing-file {"device":"f0","image-node-name":"d0","backing-file":"x"}
	blockdev-snapshot-sync {"node-name":"nope","snapshot-file":"DIR/o1.qcow2","snapshot-node-name":"o1"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o1.qcow2"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o1.qcow2","snapshot-node-name":"d1"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o1.qcow2","snapshot-node-name":"o1","format":"nosuch"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o1.qcow2","snapshot-node-name":"o1","format":"raw"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/no/o1.qcow2","snapshot-node-name":"o1"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o9.qcow2","snapshot-node-name":"o1","mode":"existing"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o9.qcow2","snapshot-node-name":"o1","mode":"existing","format":"nosuch"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o1.qcow2","snapshot-node-name":"o1","mode":"bad"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/a.qcow2","snapshot-node-name":"o1"}
	blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"DIR/o1.qcow2","snapshot-node-name":"o1"}
	transaction {"actions":[{"type":"blockdev-snapshot-sync","data":{"node-name":"o1","snapshot-file":"DIR/o2.qcow2","snapshot-node-name":"o2"}},{"type":"blockdev-snapshot-sync","data":{"node-name":"d1","snapshot-file":"DIR/over.qcow2","snapshot-node-name":"o3","mode":"existing"}}]}
	query-block-exports
	sh qemu-io -f raw -c 'write -q -P 9 512k 64k' 'nbd+unix:///d0?socket=s' && qemu-io -f raw -c 'write -q -P 8 0 64k' 'nbd+unix:///d1?socket=s'
	sh nbdcopy 'nbd+unix:///d0?socket=s' - | sha256sum; nbdcopy 'nbd+unix:///d1?socket=s' - | sha256sum
	change-backing-file {"device":"o2","image-node-name":"o2","backing-file":"o1.qcow2"}
	change-backing-file {"device":"d1","image-node-name":"o2","backing-file":"o1.qcow2"}
	change-backing-file {"device":"o3","image-node-name":"o2","backing-file":"o1.qcow2"}
	blockdev-snapshot-internal-sync {"device":"o2","name":"last"}
`

// snapshotsLeft shows what is in the images when the daemon has ended.
const snapshotsLeft = `for i in a b o1 o2 over; do
	echo $i; qemu-img check -q $i.qcow2 2>&1; qemu-img info $i.qcow2 | grep -E 'size: .*bytes|backing|compat'
	for s in s1 t1 last; do qemu-img convert -q -l snapshot.name=$s -O raw $i.qcow2 x 2>/dev/null && sha256sum x; done
	qemu-img convert -O raw $i.qcow2 x 2>&1 && sha256sum x
done; ls | grep -v '^s$'`

var snapshotTimes = regexp.MustCompile(`"(date|vm-clock)-n?sec":[0-9]+`)

// snapshotsOf are the snapshots of a node.
func (s *steered) snapshotsOf(node string) string {
	s.t.Helper()
	var nodes []struct {
		Name  string `json:"node-name"`
		Image struct {
			Snapshots json.RawMessage `json:"snapshots"`
		} `json:"image"`
	}
	require.NoError(s.t, json.Unmarshal([]byte(s.do("query-named-block-nodes")), &nodes))
	for _, n := range nodes {
		if n.Name == node {
			return string(n.Image.Snapshots)
		}
	}
	return "no such node"
}

// Goal: snapshots of both kinds are made and deleted as by qemu-storage-daemon, alone and several at one instant, with the same answers, under exports
// that are in use; what is left in the images is the same too. Method: one script is sent to both, with clients in between; qemu-img looks at the images.
func TestSnapshotsAsQEMU(t *testing.T) {
	look := func(program string) string {
		s := steer(t, program)
		var b strings.Builder
		for line := range strings.Lines(snapshotScript) {
			line = strings.TrimSpace(line)
			var said string
			if command, is := strings.CutPrefix(line, "sh "); is {
				said = fmt.Sprintf("%+v", run(t, s.dir, "/bin/sh", "-c", command))
			} else if node, is := strings.CutPrefix(line, "snapshots "); is {
				said = s.snapshotsOf(node)
			} else if line != "" {
				said = s.do(line)
			}
			fmt.Fprintf(&b, "%s\n\t%s\n", line, snapshotTimes.ReplaceAllString(said, `"$1":0`))
		}
		out := s.end(syscall.SIGTERM)
		require.Zero(t, out.Status, "%+v", out)
		fmt.Fprintf(&b, "%+v\n", run(t, s.dir, "/bin/sh", "-c", snapshotsLeft))
		return b.String()
	}
	want := look(stockQSD)
	require.Equal(t, want, look(asProgram(t, qsdName)))
}

// Goal: a transaction that fails leaves no overlay, neither open nor as a file. Method: one behind which another action fails.
func TestTransactionTakesOverlaysBack(t *testing.T) {
	s := steer(t, asProgram(t, qsdName))
	require.NoError(t, exec.Command("qemu-img", "create", "-q", "-f", "qcow2", s.dir+"/a.qcow2", "1M").Run())
	require.Equal(t, "{}", s.do(`blockdev-add {"driver":"qcow2","node-name":"d0","file":{"driver":"file","filename":"DIR/a.qcow2"}}`))
	before := s.do("query-named-block-nodes")
	require.Equal(t, "GenericError: Transaction aborted using Abort action", s.do(`transaction {"actions":[{"type":"blockdev-snapshot-sync",
		"data":{"node-name":"d0","snapshot-file":"DIR/o.qcow2","snapshot-node-name":"o"}},{"type":"abort","data":{}}]}`))
	require.Equal(t, before, s.do("query-named-block-nodes"))
	require.NoFileExists(t, s.dir+"/o.qcow2")
	require.Zero(t, s.end(syscall.SIGTERM).Status)
}
