package interop_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// Goal: QEMU's lister, whose output scripts read, sees a writable export as it sees its own. Method: qemu-nbd -L on a
// unix socket; the numbers are those of a stock export with rotational unknown.
func TestQemuNbdListWritable(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, 3*mib), Name: "disk", Args: []string{"-f", "raw", "-D", "a disk"}})
	out := client(t, "qemu-nbd", "-L", "-k", server.Socket).ok(t)
	for _, line := range []string{
		"exports available: 1\n", " export: 'disk'\n", "  description: a disk\n", "  size:  3145728\n",
		"  min block: 1\n", "  opt block: 4096\n", "  max block: ", "   base:allocation\n",
	} {
		require.Contains(t, out, line)
	}
	require.Regexp(t, `flags: 0x[0-9a-f]+ \( flush fua trim zeroes df multi cache fast-zero \)`, out)
}

// Goal: the same for a read-only export. Method: qemu-nbd -L over TCP.
func TestQemuNbdListReadOnly(t *testing.T) {
	server := program.Start(t, subject.Options{
		File: sparse(t, mib), Name: "disk", TCP: true, Args: []string{"-f", "raw", "-r"}})
	out := client(t, "qemu-nbd", "-L", "-b", "127.0.0.1", "-p", portOf(server)).ok(t)
	require.Regexp(t, `flags: 0x[0-9a-f]+ \( readonly flush fua df multi cache \)`, out)
}
