//go:build ganesha

package nfs

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
)

// ganeshaDisk is a disk on nfs-ganesha, and how to open it.
func ganeshaDisk(t *testing.T) (*nfstest.Ganesha, Options) {
	t.Helper()
	g := nfstest.StartGanesha(t, t.TempDir())
	require.NoError(t, os.WriteFile(g.Path("disk"), make([]byte, 64<<10), 0o666))
	o, _, err := ParseURL(g.StockURL("disk"))
	require.NoError(t, err)
	o.Locking = LockOn
	return g, o
}

// Goal: locks at a real server, found by its port mapper, exclude what they should: our own, and QEMU on the server itself, which sees the same bytes. Method: nfs-ganesha, which
// takes locks in its file system for its clients.
func TestLocksOnGanesha(t *testing.T) {
	g, o := ganeshaDisk(t)
	f, err := Open(o)
	require.NoError(t, err)
	_, err = Open(o)
	conflict, is := errors.AsType[*LockError](err)
	require.True(t, is, "%v", err)
	require.Contains(t, conflict.Holder, "nbd-dataplane@", "ganesha tells who has a lock")
	reader := o
	reader.ReadOnly = true
	_, err = Open(reader)
	require.True(t, isLocked(err), "%v", err)

	out, err := exec.Command("qemu-io", "-f", "raw", "-c", "write 0 512", g.Path("disk")).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `Failed to get "write" lock`)
	closeFile(t, f)
	out, err = exec.Command("qemu-io", "-f", "raw", "-c", "write 0 512", g.Path("disk")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	f, err = Open(o)
	require.NoError(t, err)
	closeFile(t, f)
}
