package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a disk that is copied into an export of the filter compress makes a compressed image, also one that ends within a cluster, through other filters too, and what is
// written over a cluster that is there fails as with QEMU. Method: qemu-img convert and nbdcopy, then qemu-img check and compare.
func TestDaemonCompresses(t *testing.T) {
	for _, c := range []struct{ options, below, copies string }{
		{"compression_type=zlib", "image", "qemu-img convert -n -S 64k -f raw -O raw src URI"},
		{"compression_type=zstd", "image", "nbdcopy src URI"},
		{"cluster_size=2M", "t", "qemu-img convert -n -S 2M -f raw -O raw src URI"},
		{"cluster_size=4k,extended_l2=off", "image", "nbdcopy --requests=1 src URI"},
	} {
		t.Run(c.options, func(t *testing.T) {
			s := steer(t, asProgram(t, qsdName), "--object", "throttle-group,id=g")
			const size = 5<<20 + 512
			disk := make([]byte, size)
			for k := range disk[:3<<20] {
				disk[k] = "abcdefgh"[rand.IntN(8)]
			}
			copy(disk[size-512:], "the end")
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, "src"), disk, 0o600))
			out, err := s.tool("qemu-img", "create", "-q", "-f", "qcow2", "-o", c.options, "q.qcow2", fmt.Sprint(size))
			require.NoError(t, err, out)
			s.ok(
				`blockdev-add {"driver":"qcow2","node-name":"image","discard":"unmap","file":{"driver":"file","filename":"DIR/q.qcow2"}}`,
				`blockdev-add {"driver":"throttle","node-name":"t","throttle-group":"g","file":"image"}`,
				`blockdev-add {"driver":"compress","node-name":"c","file":"`+c.below+`"}`,
				`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
				`block-export-add {"type":"nbd","id":"e","node-name":"c","name":"e","writable":true}`)
			out, err = s.tool("sh", "-c", "URI='nbd+unix:///e?socket=DIR/s'; "+c.copies[:len(c.copies)-3]+`"$URI"`)
			require.NoError(t, err, out)
			out, _ = s.tool("qemu-io", "-f", "raw", "-c", "write -P 7 512 512", "nbd+unix:///e?socket=DIR/s")
			require.Contains(t, out, "Input/output error")
			s.ok(`quit`)
			require.Equal(t, ended, s.wait())
			out, err = s.tool("qemu-img", "check", "q.qcow2")
			require.NoError(t, err, out)
			require.Contains(t, out, "100.00% compressed clusters")
			out, err = s.tool("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "src", "q.qcow2")
			require.NoError(t, err, out)
		})
	}
}
