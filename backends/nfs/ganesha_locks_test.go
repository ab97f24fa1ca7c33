//go:build ganesha

package nfs

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// ganeshaDisk is a disk on nfs-ganesha, and how to open it.
func ganeshaDisk(t *testing.T) (*nfstest.Ganesha, Options) {
	t.Helper()
	g := nfstest.StartGanesha(t, t.TempDir())
	require.NoError(t, os.WriteFile(g.Path("disk"), make([]byte, 64<<10), 0o666))
	o, _, err := ParseURL(g.StockURL("disk"))
	require.NoError(t, err)
	o.Locking = imagelock.On
	return g, o
}

// Goal: locks at a real server, found by its port mapper, exclude what they should: our own, and QEMU on the server itself, which sees the same bytes. Method: nfs-ganesha, which
// takes locks in its file system for its clients.
func TestLocksOnGanesha(t *testing.T) {
	g, o := ganeshaDisk(t)
	f, err := Open(o)
	require.NoError(t, err)
	_, err = Open(o)
	conflict, is := errors.AsType[*imagelock.ConflictError](err)
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

// Goal: ganesha keeps the locks of a client that is gone, until the note of it is found; and after its own restart it gets them again, before anything else is written. Method: a file that ends
// as by kill -9 of its process, opened again without the notes and with them; then the server is killed below it, twice.
func TestLocksOnGaneshaOutliveTheirOwner(t *testing.T) {
	g, o := ganeshaDisk(t)
	o.LockNotes = t.TempDir()
	f, err := Open(o)
	require.NoError(t, err)
	dieWith(f)
	closeFile(t, f)
	without := o
	without.LockNotes = t.TempDir()
	_, err = Open(without)
	require.True(t, isLocked(err), "%v", err)

	r := &rig{t: t, health: make(chan Health, 1000)}
	r.ctx, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	t.Cleanup(r.ctx.Close)
	r.file, err = Open(o)
	require.NoError(t, err)
	t.Cleanup(r.close)
	r.write(0, random(1, 4096), 0)
	g.Kill()
	g.Restart()
	r.write(4096, random(2, 4096), 0)
	require.NoError(t, r.flush())
	_, err = Open(without)
	require.True(t, isLocked(err), "%v", err)

	// Another client gets the disk before this one comes back: scripts/ganesha gives no time of grace.
	g.Kill()
	g.Restart()
	other, err := Open(without)
	require.NoError(t, err)
	t.Cleanup(func() { closeFile(t, other) })
	require.ErrorIs(t, r.do(r.writing(0, random(3, 512), 0)), syscall.EIO)
	require.True(t, r.file.RefusesWrites())
}

// Goal: in the time of grace of a real server locks are reclaimed and data written, while others wait and then see who has the disk. Method: ganesha with 3 s of grace is killed.
func TestLocksAreReclaimedOnGanesha(t *testing.T) {
	t.Setenv("GANESHA_GRACE", "3")
	g, o := ganeshaDisk(t)
	r := &rig{t: t, health: make(chan Health, 1000)}
	var err error
	r.ctx, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	t.Cleanup(r.ctx.Close)
	r.file, err = Open(o)
	require.NoError(t, err)
	t.Cleanup(r.close)
	r.write(0, random(1, 4096), 0)
	g.Kill()
	g.Restart()
	r.write(4096, random(2, 4096), blockcore.WriteFUA)
	_, err = Open(o)
	require.True(t, isLocked(err), "%v", err)
}
