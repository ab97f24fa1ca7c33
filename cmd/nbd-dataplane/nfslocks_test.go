package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
)

// lockingNFS is a server with a disk and a lock manager, and a directory for the notes of those who lock.
func lockingNFS(t *testing.T) *nfstest.Server {
	t.Helper()
	server := nfstest.Start(t, nfstest.Options{Locks: nfstest.LinuxLocks})
	server.Put("/export/disk", nfstest.File{SizeBytes: 1 << 20})
	t.Setenv("STATE_DIRECTORY", t.TempDir())
	return server
}

// Goal: two programs do not serve one disk, and one that was killed is in nobody's way. Method: two servers, under both names; the first is killed; then the second one comes again.
func TestNFSDiskIsLocked(t *testing.T) {
	server := lockingNFS(t)
	url := server.URL("/export/disk")
	first := startOwnNamed(t, "e", "-f", "raw", "e="+url)
	require.Len(t, server.Locks("/export/disk"), 4)
	socket := filepath.Join(t.TempDir(), "s")
	out, err := exec.Command(asProgram(t, programName), "serve", "--log-level=off", "-k", socket, "-f", "raw", url).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `Failed to get "write" lock`)
	require.Contains(t, string(out), "docs/nfs.md")
	out, err = exec.Command(asProgram(t, qemuName), "-k", socket, "-f", "raw", url).CombinedOutput()
	require.Error(t, err)
	require.Equal(t, fmt.Sprintf("%s: Failed to blk_new_open '%s': Failed to get \"write\" lock\nIs another process using the image [%s]?\n", qemuName, url, url), string(out))
	out, err = exec.Command(asProgram(t, programName), "image", "info", url).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `Failed to get shared "write" lock`)
	out, err = exec.Command(asProgram(t, programName), "image", "info", "-U", url).CombinedOutput()
	require.NoError(t, err, string(out))

	require.NoError(t, first.cmd.Process.Kill())
	_ = first.cmd.Wait()
	require.Len(t, server.Locks("/export/disk"), 4, "they stay")
	second := startOwnNamed(t, "e", "-f", "raw", "e="+url)
	require.Len(t, server.Locks("/export/disk"), 4)
	require.NoError(t, second.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, second.cmd.Wait())
	require.Empty(t, server.Locks("/export/disk"))
}

// Goal: monitors have locks taken, left out and demanded, and are told of their loss, after which clients read and do not write. Method: a daemon; then the server is restarted while QEMU of another
// host takes the disk.
func TestMonitorLocksOnNFS(t *testing.T) {
	server := lockingNFS(t)
	s := steer(t, asProgram(t, programName), "daemon")
	node := func(name, more string) string {
		return fmt.Sprintf(`blockdev-add {"driver":"nfs","node-name":%q,"server":{"type":"inet","host":%q},"path":"/export/disk","nfsport":%d,"mountport":%d,"nlmport":%d%s}`,
			name, server.Address(), server.NFSPort(), server.MountPort(), server.LockPort(), more)
	}
	s.ok(node("a", `,"locking":"on"`))
	require.Contains(t, s.do(node("b", "")), `Failed to get`)
	require.Contains(t, s.do(node("b", `,"read-only":true`)), `Failed to get shared`)
	s.ok(node("b", `,"read-only":true,"force-share":true`), `blockdev-del {"node-name":"b"}`)
	s.ok(node("b", `,"locking":"off"`), `blockdev-del {"node-name":"b"}`)
	require.Contains(t, s.do(node("b", `,"locking":"perhaps"`)), `perhaps`)
	require.Len(t, server.Locks("/export/disk"), 4)
	require.Contains(t, s.rawNodes(), `nlmport`)
	s.ok(
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
		`block-export-add {"type":"nbd","id":"e","node-name":"a","name":"e","writable":true}`)
	s.qemuIO("write -P 5 0 64k", "flush")

	server.Crash(nfstest.LoseAll)
	server.PutLock("/export/disk", nfstest.Lock{Host: "other", Number: 7, Offset: 101, LengthBytes: 1})
	server.Restart()
	out, err := s.tool("qemu-io", "-f", "raw", "-c", "read -P 5 0 64k", "-c", "write 0 512", "nbd+unix:///e?socket=DIR/s")
	require.Error(t, err)
	require.Contains(t, out, "read 65536/65536")
	require.Contains(t, out, "write failed: Input/output error")
	require.Contains(t, s.rawNodes(), `"refuses-writes":true`)
}

// Goal: a disk that is made read-only, by hand or by an overlay, is there for other readers, and is taken back before it is written to. Method: a daemon, and other nodes on the same disk, which know nothing of
// its node.
func TestReadOnlyDiskOnNFSIsLockedAsSuch(t *testing.T) {
	server := lockingNFS(t)
	s := steer(t, asProgram(t, programName), "daemon")
	node := func(name, file, more string) string {
		return fmt.Sprintf(`{"driver":"nfs","node-name":%q,"server":{"type":"inet","host":%q},"path":"/export/%s","nfsport":%d,"mountport":%d,"nlmport":%d%s}`,
			name, server.Address(), file, server.NFSPort(), server.MountPort(), server.LockPort(), more)
	}
	reader := "blockdev-add " + node("b", "disk", `,"read-only":true`)
	reopen := func(more string) string { return `blockdev-reopen {"options":[` + node("a", "disk", more) + `]}` }
	s.ok("blockdev-add " + node("a", "disk", ""))
	require.Contains(t, s.do(reader), `Failed to get shared`)
	s.ok(reopen(`,"read-only":true`))
	server.AwaitLocks("/export/disk", 3)
	s.ok(reader)
	require.Contains(t, s.do(reopen("")), `Failed to get`)
	s.ok(`blockdev-del {"node-name":"b"}`, reopen(""))
	require.Len(t, server.Locks("/export/disk"), 4)

	out, err := exec.Command(asProgram(t, programName), "image", "create", "-f", "qcow2", server.URL("/export/top"), "1M").CombinedOutput()
	require.NoError(t, err, string(out))
	s.ok("blockdev-add "+node("t", "top", ""),
		`blockdev-add {"driver":"qcow2","node-name":"q","file":"t","backing":null}`,
		`blockdev-snapshot {"node":"a","overlay":"q"}`)
	server.AwaitLocks("/export/disk", 3)
	s.ok(reader)
}
