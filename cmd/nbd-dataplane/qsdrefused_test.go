package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// refusedRows are commands for the disk q of an image whose file refuses what is said.
var refusedRows = []struct{ image, refuses, command string }{
	{"small", "write", `block_resize {"node-name":"q","size":1099511627776}`},
	{"small", "write", `block_resize {"node-name":"q","size":134217728}`},
	{"small", "flush", `block_resize {"node-name":"q","size":134217728}`},
	{"small", "write", `block_resize {"node-name":"q","size":1048576}`},
	{"kept", "write", `block_resize {"node-name":"q","size":1048576}`},
	{"over", "write", `block_resize {"node-name":"q","size":134217728}`},
	{"small", "write", `blockdev-snapshot-internal-sync {"device":"q","name":"s"}`},
	{"small", "flush", `blockdev-snapshot-internal-sync {"device":"q","name":"s"}`},
	{"small", "write", `transaction {"actions":[{"type":"blockdev-snapshot-internal-sync","data":{"device":"q","name":"s"}}]}`},
	{"kept", "write", `blockdev-snapshot-delete-internal-sync {"device":"q","name":"k1"}`},
	{"kept", "flush", `blockdev-snapshot-delete-internal-sync {"device":"q","name":"k1"}`},
}

const refusedImages = `qemu-img create -q -f qcow2 small.qcow2 64M && qemu-io -f qcow2 -c 'write -q 0 4M' small.qcow2
	cp small.qcow2 kept.qcow2 && qemu-img snapshot -c k1 kept.qcow2 && qemu-img snapshot -c k2 kept.qcow2
	qemu-img create -q -f raw below.img 1G && qemu-img create -q -f qcow2 -b below.img -F raw over.qcow2 64M`

// Goal: monitors are told what the disk has refused in QEMU's words, and where it was beside them. Method: each command on an image whose file fails all writes, or
// all flushes, by blkdebug, at qemu-storage-daemon and at ours, and a flush that fails before an overlay comes on top.
func TestRefusedByTheDisk(t *testing.T) {
	look := func(program string, ours bool) (all []string) {
		s := steer(t, program)
		out, err := s.tool("sh", "-c", refusedImages)
		require.NoError(t, err, out)
		disk := func(image, refuses, errno string) {
			s.ok(`blockdev-add {"driver":"blkdebug","node-name":"b","image":{"driver":"file","filename":"DIR/`+image+`.qcow2"},
				"inject-error":[{"event":"none","iotype":"`+refuses+`","errno":`+errno+`}]}`, `blockdev-add {"driver":"qcow2","node-name":"q","file":"b"}`)
		}
		for _, row := range refusedRows {
			for _, errno := range []string{"28", "5"} {
				out, err := s.tool("cp", row.image+".qcow2", "d.qcow2")
				require.NoError(t, err, out)
				disk("d", row.refuses, errno)
				all = append(all, row.image+" "+row.refuses+" "+row.command+"\n\t"+s.do(row.command))
				s.do(`blockdev-del {"node-name":"q"}`)
				s.do(`blockdev-del {"node-name":"b"}`)
			}
		}
		disk("small", "flush", "28")
		s.ok(`blockdev-add {"driver":"qcow2","node-name":"o","backing":null,"file":{"driver":"file","filename":"DIR/over.qcow2"}}`,
			`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`, `block-export-add {"type":"nbd","id":"e","node-name":"q","writable":true}`)
		s.tool("qemu-io", "-f", "raw", "-c", "write 32M 64k", "nbd+unix:///q?socket="+s.dir+"/s") // flushes at its end, in vain
		all = append(all, s.do(`blockdev-snapshot {"node":"q","overlay":"o"}`))
		if ours {
			said := s.raw(`{"execute":"blockdev-snapshot","arguments":{"node":"q","overlay":"o"}}`+"\n", 1)[0]
			require.Regexp(t, `"x-detail": ?\{"reason": ?"disk", ?"where": ?"flush node q: .*injected into .*no space left on device"`, said)
		}
		return all
	}
	want := look(stockQSD, false)
	require.Equal(t, want, look(asProgram(t, qsdName), true))
}
