package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/qcow2/qcowtest"
)

// Goal: --create makes images on NFS in any format and with options; a file that is there stays as it is, and one that was made goes when the start fails. Method: the file is looked at
// on the server, by QEMU.
func TestServeCreatesOnNFS(t *testing.T) {
	server, _ := onNFS(t)
	dir := t.TempDir()
	for n, c := range []struct {
		args []string
		says string // of it, qemu-img info
	}{
		{[]string{"-f", "qcow2"}, "file format: qcow2\nvirtual size: 2 MiB (2097152 bytes)"},
		{[]string{"--create-options", "cluster_size=4k", "--create-options", "refcount_bits=8,compat=1.1", "-f", "qcow2"}, "cluster_size: 4096"},
		{nil, "file format: qcow2"}, // by its name
		{[]string{"-f", "raw", "--create-options", "preallocation=full"}, "file format: raw"},
		{[]string{"-f", "raw"}, "file format: raw"},
	} {
		name := fmt.Sprintf("/export/n%d.qcow2", n)
		for range 2 { // the second time it is there
			own := startOwnNamed(t, "e", append(c.args, "--create", "2M", "e="+server.URL(name))...)
			qemuIO(t, own.socket, "read 0 64k", fmt.Sprintf("write -P %d 64k 64k", n+1), "flush")
			require.NoError(t, own.cmd.Process.Signal(os.Interrupt))
			require.NoError(t, own.cmd.Wait())
		}
		copied := filepath.Join(dir, "copy")
		require.NoError(t, os.WriteFile(copied, server.Stable(name), 0o600))
		require.Contains(t, qcowtest.Must(t, dir, "qemu-img", "info", copied), c.says)
		qcowtest.Must(t, dir, "qemu-io", "-r", "-c", fmt.Sprintf("read -P %d 64k 64k", n+1), "-c", "read -P 0 128k 1M", copied)
	}
	names := server.Names("/export")
	for _, c := range []struct{ args, says string }{
		{"-f qcow2 --create-options cluster_size=5", "Cluster size must be a power of two"},
		{"-f qcow2 --create-options preallocation=falloc", "'full' writes zeroes instead"},
		{"-f qcow2 --create-options data_file=n0.qcow2", "file already exists"},
		{"-f qcow2 -k " + dir + "/no/socket", "make the directory"},
		{"-f raw -k " + dir + "/no/socket", "make the directory"},
	} {
		args := append([]string{"serve", "--log-level=off", "-k", filepath.Join(dir, "s"), "--create", "1M"}, strings.Fields(c.args)...)
		ran := qcowtest.Stock(t, dir, asProgram(t, programName), append(args, server.URL("/export/x"))...)
		require.NotZero(t, ran.Status)
		require.Contains(t, ran.Stderr, c.says, c.args)
		require.Equal(t, names, server.Names("/export"), c.args)
	}
}

// snapshotsOnNFS is a daemon with two disks on NFS, a qcow2 image and a file without a format, and their exports d0 and d1.
func snapshotsOnNFS(t *testing.T, server *nfstest.Server) *steered {
	t.Helper()
	image := filepath.Join(t.TempDir(), "a.qcow2")
	qcowtest.Must(t, "/", "qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
	contents, err := os.ReadFile(image)
	require.NoError(t, err)
	server.Put("/export/a.qcow2", nfstest.File{Contents: contents})
	server.Put("/export/b.img", nfstest.File{SizeBytes: 1 << 20})
	s := steer(t, asProgram(t, qsdName))
	file := func(name string) string {
		return fmt.Sprintf(`"driver":"nfs","server":{"type":"inet","host":%q},"path":%q,"nfsport":%d,"mountport":%d`, server.Address(), name, server.NFSPort(), server.MountPort())
	}
	s.ok(
		fmt.Sprintf(`blockdev-add {"driver":"qcow2","node-name":"d0","file":{%s}}`, file("/export/a.qcow2")),
		fmt.Sprintf(`blockdev-add {%s,"node-name":"d1"}`, file("/export/b.img")),
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
		`block-export-add {"type":"nbd","id":"d0","node-name":"d0","name":"d0","writable":true}`,
		`block-export-add {"type":"nbd","id":"d1","node-name":"d1","name":"d1","writable":true}`)
	return s
}

// overlay is an action of a transaction.
func overlay(node, file, name string) string {
	return fmt.Sprintf(`{"type":"blockdev-snapshot-sync","data":{"node-name":%q,"snapshot-file":%q,"snapshot-node-name":%q}}`, node, file, name)
}

// Goal: monitors have overlays made on a share, several at one instant or none, of disks there and on this machine; what one that fails has made is gone, and what was there before is not. The names that
// images have of each other lead to the files. Method: a daemon and its clients, and the tools on what it has left.
func TestSnapshotsOnNFS(t *testing.T) {
	server, _ := onNFS(t)
	s := snapshotsOnNFS(t, server)
	url := func(name string) string { return server.URL("/export/" + name) }
	write := func(n int) {
		for _, export := range []string{"d0", "d1"} {
			qcowtest.Must(t, s.dir, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -q -P %d %d 64k", n, n<<16), "-c", "flush", "nbd+unix:///"+export+"?socket=s")
		}
	}
	write(1)
	server.Put("/export/old", nfstest.File{Contents: []byte("somebody else's")})
	names := server.Names("/export")
	transaction := func(actions ...string) string { return `transaction {"actions":[` + strings.Join(actions, ",") + `]}` }
	require.Contains(t, s.do(transaction(overlay("d0", url("t0"), "t0"), `{"type":"abort","data":{}}`)), "Transaction aborted using Abort action")
	require.Contains(t, s.do(transaction(overlay("d0", url("t0"), "t0"), overlay("d1", url("no/t1"), "t1"))), "look up the directory no: ")
	require.Contains(t, s.do(transaction(overlay("d0", url("t0"), "t0"), overlay("d1", url("a.qcow2")+"&timeout=5", "t1"))), "; choose another name")
	require.Contains(t, s.do(`blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"`+url("a.qcow2")+`","snapshot-node-name":"t0"}`), "the same filename as the backing file")
	require.Contains(t, s.do(`blockdev-snapshot-sync {"node-name":"d0","snapshot-file":"`+url("old")+`","snapshot-node-name":"t0","x-exclusive":true}`), "is there already; choose another name")
	for _, f := range []nfstest.Fault{{NoReply: true}, {Status: nfstest.DQuot}} {
		disarm := server.Inject(nfstest.Rule{Proc: nfstest.Write, Count: -1, Fault: f})
		require.Contains(t, s.do(transaction(overlay("d0", url("t0")+"&timeout=1", "t0"))), "Could not write to the image: ")
		require.NotZero(t, disarm())
	}
	require.Equal(t, names, server.Names("/export"))
	require.Equal(t, "QFI\xfb", string(server.Stable("/export/a.qcow2")[:4]))
	require.Equal(t, "somebody else's", string(server.Stable("/export/old")))

	s.ok(transaction(overlay("d0", url("t0"), "t0"), overlay("d1", url("t1"), "t1")))
	write(2)
	s.ok(fmt.Sprintf(`blockdev-snapshot-sync {"node-name":"t0","snapshot-file":"DIR/u0","snapshot-node-name":"u0"}`),
		fmt.Sprintf(`blockdev-snapshot-sync {"node-name":"t1","snapshot-file":%q,"snapshot-node-name":"u1"}`, url("u1")))
	write(3)
	s.ok(`change-backing-file {"device":"u0","image-node-name":"t0","backing-file":"a.qcow2"}`, `change-backing-file {"device":"u1","image-node-name":"t1","backing-file":"b.img"}`,
		`change-backing-file {"device":"u1","image-node-name":"u1","backing-file":"t1"}`, `quit`)
	require.NoError(t, s.cmd.Wait())
	program := asProgram(t, programName)
	for _, c := range []struct{ top, chain string }{
		{filepath.Join(s.dir, "u0"), url("t0") + " " + url("a.qcow2")}, {url("u1"), url("t1") + " " + url("b.img")},
	} {
		said := qcowtest.Must(t, s.dir, program, "image", "info", "--backing-chain", c.top)
		var chain []string
		for line := range strings.Lines(said) {
			if name, is := strings.CutPrefix(line, "image: "); is {
				chain = append(chain, strings.TrimSpace(name))
			}
		}
		require.Equal(t, c.top+" "+c.chain, strings.Join(chain, " "))
		own := startOwnNamed(t, "e", "--read-only", "e="+c.top)
		out := qcowtest.Must(t, s.dir, "qemu-io", "-r", "-f", "raw", "-c", "read -P 1 64k 64k", "-c", "read -P 2 128k 64k", "-c", "read -P 3 192k 64k",
			"-c", "read -P 0 256k 64k", "nbd+unix:///e?socket="+own.socket)
		require.NotContains(t, out, "failed")
	}
}

// Goal: people take snapshots of a server's disks on a share, get overlays next to the images, and add exports of files there. Method: ctl, and the files that are there then.
func TestCtlOnNFS(t *testing.T) {
	server, _ := onNFS(t)
	own := startOwnNamed(t, "a", "--control=m", "--create", "1M", "a="+server.URL("/export/a.qcow2"))
	ctl := func(args ...string) string {
		return qcowtest.Must(t, own.cmd.Dir, asProgram(t, programName), append([]string{"ctl", "--control", "m", "snapshot"}, args...)...)
	}
	require.Contains(t, ctl("create", "a", "--name", "one"), "a: clients write to "+server.URL("/export/a.one.qcow2")+", node a-one")
	require.Contains(t, ctl("create", "a", "--file", server.URL("/export/two")), "a: clients write to "+server.URL("/export/two"))
	ctl("create", "a")
	require.Contains(t, ctl("list"), server.URL("/export/a.one.qcow2"))
	require.Len(t, server.Names("/export"), 4)

	share := func(args ...string) string {
		return qcowtest.Must(t, own.cmd.Dir, asProgram(t, programName), append([]string{"ctl", "--control", "m"}, args...)...)
	}
	server.Put("/export/raw.img", nfstest.File{SizeBytes: 1 << 20})
	share("export", "add", "--file", server.URL("/export/raw.img"), "--writable")
	qcowtest.Must(t, own.cmd.Dir, "qemu-io", "-f", "raw", "-c", "write -q -P 7 0 64k", "-c", "flush", "nbd+unix:///raw?socket="+own.socket)
	require.EqualValues(t, 7, server.Stable("/export/raw.img")[0])
	other := server.URL("/export/b.qcow2")
	qcowtest.Must(t, own.cmd.Dir, asProgram(t, programName), "image", "create", "-q", other, "1M")
	ran := qcowtest.Stock(t, own.cmd.Dir, asProgram(t, programName), "ctl", "--control", "m", "export", "add", "--file", other)
	require.Contains(t, ran.Stderr, "it looks like qcow2; add --format qcow2")
	share("export", "add", "--file", other, "--format", "qcow2")
	require.Regexp(t, `\nb +b +1M `, share("export", "list"))
	out, err := exec.Command(asProgram(t, programName), "ctl", "--control", filepath.Join(own.cmd.Dir, "m"), "snapshot", "create", "a", "--file", server.URL("/export/no/x")).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "make the directory first")
}
