package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// corruptions are images that a client finds out to be corrupt.
var corruptions = []struct {
	name     string
	readOnly bool
	damage   func(image []byte)
	request  string
}{
	// The L1 entry leads to the middle of a cluster.
	{"L1 entry", false, func(p []byte) { flip(p, l1Of(p), 0x200) }, "read 0 64k"},
	{"L1 entry of an image that is read", true, func(p []byte) { flip(p, l1Of(p), 0x200) }, "read 0 64k"},
	// The L2 entry does.
	{"L2 entry", false, func(p []byte) { flip(p, l2Of(p), 0x200) }, "read 0 64k"},
	// The L2 table is counted as free, and taken for the next write.
	{"refcount of the L2 table", false, func(p []byte) {
		binary.BigEndian.PutUint16(p[blockOf(p)+2*l2Of(p)>>16:], 0)
	}, "write 1M 64k"},
}

func flip(p []byte, at, bits uint64) {
	binary.BigEndian.PutUint64(p[at:], binary.BigEndian.Uint64(p[at:])|bits)
}

func l1Of(p []byte) uint64    { return binary.BigEndian.Uint64(p[40:]) }
func l2Of(p []byte) uint64    { return binary.BigEndian.Uint64(p[l1Of(p):]) & 0x00fffffffffffe00 }
func blockOf(p []byte) uint64 { return binary.BigEndian.Uint64(p[binary.BigEndian.Uint64(p[48:]):]) }

// Goal: monitors and people are told of corruption as by qemu-storage-daemon, and what becomes of the image is the same. Method: damaged images under both,
// one request that meets the damage, and one after it.
func TestCorruptionIsTold(t *testing.T) {
	for _, c := range corruptions {
		t.Run(c.name, func(t *testing.T) {
			meet := func(program string) string {
				s := steer(t, program)
				path := filepath.Join(s.dir, "c.qcow2")
				out, err := s.tool("sh", "-c", "qemu-img create -q -f qcow2 c.qcow2 4M && qemu-io -f qcow2 -c 'write -q -P 7 0 64k' c.qcow2")
				require.NoError(t, err, out)
				image, err := os.ReadFile(path)
				require.NoError(t, err)
				c.damage(image)
				require.NoError(t, os.WriteFile(path, image, 0o600))
				s.ok(
					fmt.Sprintf(`blockdev-add {"driver":"qcow2","node-name":"d","read-only":%v,"file":{"driver":"file","filename":"DIR/c.qcow2"}}`, c.readOnly),
					`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
					fmt.Sprintf(`block-export-add {"type":"nbd","id":"e","node-name":"d","name":"e","writable":%v}`, !c.readOnly))
				var b strings.Builder
				for _, request := range []string{c.request, "read 2M 64k", "flush"} {
					args := []string{"-f", "raw", "-c", request, "nbd+unix:///e?socket=DIR/s"}
					if c.readOnly {
						args = append([]string{"-r"}, args...)
					}
					out, _ := s.tool("qemu-io", args...)
					fmt.Fprintf(&b, "%s: failed: %v\n", request, strings.Contains(out, "failed"))
				}
				fmt.Fprintln(&b, s.await("BLOCK_IMAGE_CORRUPTED"))
				// We say at the end that the image could not be flushed, with status 1; QEMU does not.
				said, _, _ := strings.Cut(s.end(syscall.SIGTERM).Stderr, "qemu-storage-daemon: flush node d")
				fmt.Fprintln(&b, said)
				after, err := os.ReadFile(path)
				require.NoError(t, err)
				fmt.Fprintf(&b, "incompatible features: %#x\n", binary.BigEndian.Uint64(after[72:]))
				return b.String()
			}
			want := meet(stockQSD)
			require.Contains(t, want, "BLOCK_IMAGE_CORRUPTED")
			require.Equal(t, want, meet(asProgram(t, qsdName)))
		})
	}
}
