package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/interop/subject"
)

// onNFS is a server with an export "/export", and the keys that lead to its ports.
func onNFS(t *testing.T) (s *nfstest.Server, keys string) {
	t.Helper()
	s = nfstest.Start(t, nfstest.Options{})
	return s, fmt.Sprintf("server.type=inet,server.host=%s,nfsport=%d,mountport=%d", s.Address(), s.NFSPort(), s.MountPort())
}

// qemuIO runs qemu-io on the export that a started server has.
func qemuIO(t *testing.T, socket string, commands ...string) string {
	t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.CommandContext(t.Context(), "qemu-io", append(args, "nbd+unix:///e?socket="+socket)...).CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

// Goal: a file on an NFS server is served under each way to name it, and made by --create; qcow2 on it is recognised. Method: a client writes, flushes and
// reads, and the server is looked at.
func TestServeNFS(t *testing.T) {
	server, keys := onNFS(t)
	image := filepath.Join(t.TempDir(), "q.qcow2")
	require.NoError(t, exec.Command("qemu-img", "create", "-q", "-f", "qcow2", image, "2M").Run())
	qcow2, err := os.ReadFile(image)
	require.NoError(t, err)
	for n, c := range []struct {
		args  []string
		qcow2 bool
		at    int // where in the file the disk begins
	}{
		{args: []string{"-f", "raw", "e=" + server.URL("/export/disk")}},
		{args: []string{"e=" + server.URL("/export/disk")}},
		{args: []string{"-f", "raw", "--create", "1M", "e=" + server.URL("/export/new") + "&connections=2&timeout=60"}},
		{args: []string{"-x", "e", "--image-opts", "driver=nfs,path=/export/disk," + keys}},
		{args: []string{"-x", "e", "--image-opts", "driver=raw,offset=4096,file.driver=nfs,file.path=/export/disk,file." + strings.ReplaceAll(keys, ",", ",file.")}, at: 4096},
		{args: []string{"--cache=writethrough", "-f", "raw", "--offset=512", "e=" + server.URL("/export/disk")}, at: 512},
		{args: []string{"e=" + server.URL("/export/q.qcow2")}, qcow2: true},
		{args: []string{"-f", "qcow2", "e=" + server.URL("/export/q.qcow2")}, qcow2: true},
		{args: []string{"-x", "e", "--image-opts", "driver=qcow2,file.driver=nfs,file.path=/export/q.qcow2,file." + strings.ReplaceAll(keys, ",", ",file.")}, qcow2: true},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			server.Put("/export/disk", nfstest.File{SizeBytes: 1 << 20})
			server.Put("/export/q.qcow2", nfstest.File{Contents: qcow2})
			own := startOwnNamed(t, "e", c.args...)
			qemuIO(t, own.socket, fmt.Sprintf("write -P %d 64k 64k", n+1), "flush", fmt.Sprintf("read -P %d 64k 64k", n+1), "read -P 0 128k 64k")
			require.NoError(t, own.cmd.Process.Signal(os.Interrupt))
			require.NoError(t, own.cmd.Wait())
			if c.qcow2 {
				require.NoError(t, os.WriteFile(image, server.Stable("/export/q.qcow2"), 0o600))
				out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("read -P %d 64k 64k", n+1), image).CombinedOutput()
				require.NoError(t, err, string(out))
				require.NotContains(t, string(out), "failed")
				return
			}
			name := "/export/disk"
			if strings.Contains(c.args[len(c.args)-1], "/new") {
				name = "/export/new"
			}
			require.Equal(t, byte(n+1), server.Stable(name)[c.at+64<<10])
			require.Equal(t, byte(0), server.Stable(name)[c.at+64<<10-1])
		})
	}
}

// Goal: what is wrong with a file on an NFS server is said with server, path and remedy, and under the name qemu-nbd in QEMU's words where it has some. Method: one
// mistake each.
func TestNFSRefusals(t *testing.T) {
	server, keys := onNFS(t)
	server.Put("/export/disk", nfstest.File{SizeBytes: 1 << 20})
	server.Put("/export/secret", nfstest.File{SizeBytes: 1 << 20, Mode: 0o400, UID: 77})
	server.Put("/export/dir", nfstest.File{IsDir: true})
	url := server.URL("/export/disk")
	_, query, _ := strings.Cut(url, "?")
	for _, c := range []struct{ arg, own, qemu string }{
		{url + "&bogus=1", "unknown parameter \"bogus\"; use one of connections, debug, gid", "Unknown NFS parameter name: bogus"},
		{url + "&uid=abc", "uid=abc: give a number", "Illegal value for NFS parameter: uid"},
		{"nfs:///x/y", "the server is missing", "missing hostname in URI"},
		{"nfs://" + server.Address(), "the file is missing", "missing file path in URI"},
		{server.URL("/export/none"), "/export/none?" + query + ": look up none: no such file or directory (NFS3ERR_NOENT); create the file first", ""},
		{server.URL("/export/dir"), "it is a directory", ""},
		{server.URL("/nowhere/disk"), "mount /nowhere: no such file or directory", ""},
		{server.URL("/export/secret") + "&uid=5&gid=5", "it may not be read", ""},
		{"nfs://127.0.0.1/export/disk?nfsport=1&mountport=1", "connection refused; start the NFS server on 127.0.0.1", ""},
	} {
		out, err := exec.Command(asProgram(t, programName), "serve", "--log-level=off", "-k", filepath.Join(t.TempDir(), "s"), "-f", "raw", c.arg).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), c.own, c.arg)
		if c.qemu != "" {
			out, err := exec.Command(asProgram(t, qemuName), "-k", filepath.Join(t.TempDir(), "s"), "-f", "raw", c.arg).CombinedOutput()
			require.Error(t, err)
			require.Equal(t, fmt.Sprintf("%s: Failed to blk_new_open '%s': %s\n", qemuName, c.arg, c.qemu), string(out))
		}
	}
	out, err := exec.Command(asProgram(t, programName), "serve", "--log-level=off", "-k", filepath.Join(t.TempDir(), "s"), "--image-opts",
		"driver=nfs,path=/export/disk,bogus=1,"+keys).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "Parameter 'bogus' is unexpected")
}

// Goal: monitors add, create, snapshot and remove images on NFS, and are told of an outage, during which a drain names what it waits for, keeps its deadline, and clients wait. Method: a daemon
// on a server that falls silent.
func TestMonitorOnNFS(t *testing.T) {
	server, _ := onNFS(t)
	server.Put("/export/base", nfstest.File{SizeBytes: 1 << 20})
	s := steer(t, asProgram(t, qsdName))
	location := func(name string) string {
		return fmt.Sprintf(`"server":{"type":"inet","host":%q},"path":%q,"nfsport":%d,"mountport":%d`, server.Address(), name, server.NFSPort(), server.MountPort())
	}
	s.ok(
		fmt.Sprintf(`blockdev-add {"driver":"nfs","node-name":"base",%s}`, location("/export/base")),
		fmt.Sprintf(`blockdev-create {"job-id":"j","options":{"driver":"nfs","size":0,"location":{%s}}}`, location("/export/top")),
	)
	done := func() {
		t.Helper()
		s.await("JOB_STATUS_CHANGE 5")
		require.NotContains(t, s.do("query-jobs"), `"error"`)
		s.ok(`job-dismiss {"id":"j"}`)
		s.await("JOB_STATUS_CHANGE 1")
	}
	done()
	s.ok(fmt.Sprintf(`blockdev-create {"job-id":"j","options":{"driver":"nfs","size":0,"location":{%s}}}`, location("/export/base")))
	s.await("JOB_STATUS_CHANGE 4")
	require.Contains(t, s.do("query-jobs"), "is the file of node 'base'; choose another name")
	s.ok(`job-dismiss {"id":"j"}`)
	s.await("JOB_STATUS_CHANGE 1")
	s.ok(
		fmt.Sprintf(`blockdev-add {"driver":"nfs","node-name":"topfile",%s}`, location("/export/top")),
		`blockdev-create {"job-id":"j","options":{"driver":"qcow2","file":"topfile","size":1048576}}`)
	done()
	s.ok(
		`blockdev-add {"driver":"qcow2","node-name":"top","file":"topfile","backing":null}`,
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
		`block-export-add {"type":"nbd","id":"e","node-name":"base","name":"e","writable":true}`,
		`blockdev-snapshot {"node":"base","overlay":"top"}`)
	qemuIO(t, filepath.Join(s.dir, "s"), "write -P 5 64k 64k", "flush", "read -P 5 64k 64k", "read -P 0 0 64k")
	require.Equal(t, "QFI\xfb", string(server.Stable("/export/top")[:4]))

	server.Silence()
	reading := exec.CommandContext(t.Context(), "qemu-io", "-f", "raw", "-c", "read -P 0 256k 64k", "nbd+unix:///e?socket="+filepath.Join(s.dir, "s"))
	reading.Stdout, reading.Stderr = os.Stdout, os.Stderr
	require.NoError(t, subject.Start(reading))
	s.eventually("in flight", func() bool { return strings.Contains(s.rawNodes(), `"x-in-flight":1`) })
	said := s.do(`x-drain-begin {"exports":["e"],"lease":60,"timeout":1,"flush":false}`)
	require.Contains(t, said, "gave up")
	require.Contains(t, said, "waiting for READ")
	require.Contains(t, said, "node base")
	s.eventually("ill", func() bool {
		return strings.Contains(s.rawNodes(), `"x-health":{"incidents":{`) && strings.Contains(s.rawNodes(), `"ok":false`)
	})
	// An export whose requests wait for ever goes when somebody decides that they do not.
	s.ok(`block-export-add {"type":"nbd","id":"e2","node-name":"top","name":"e2"}`)
	stuck := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "raw", "-c", "read 512k 64k", "nbd+unix:///e2?socket="+filepath.Join(s.dir, "s"))
	require.NoError(t, subject.Start(stuck))
	s.eventually("in flight", func() bool { return strings.Contains(s.rawNodes(), `"x-in-flight":2`) })
	s.ok(`block-export-del {"id":"e2","mode":"hard"}`)
	_ = stuck.Wait() // it was cut off
	// The snapshot has made the image below read-only; an option that is said otherwise would be changed in a drain.
	s.ok(fmt.Sprintf(`blockdev-reopen {"options":[{"driver":"nfs","node-name":"base","read-only":true,"timeout":1,%s}]}`, location("/export/base")))
	require.Error(t, reading.Wait())
	s.heard("BLOCK_EXPORT_DELETED") // of e2, after what failed
	s.ok(fmt.Sprintf(`blockdev-reopen {"options":[{"driver":"nfs","node-name":"base","read-only":true,%s}]}`, location("/export/base")))
	require.Contains(t, s.do(fmt.Sprintf(`blockdev-reopen {"options":[{"driver":"nfs","node-name":"base",%s}]}`, location("/export/top"))), "Cannot change the option 'path'")
	server.Speak()
	qemuIO(t, filepath.Join(s.dir, "s"), "read -P 0 256k 64k")
	s.eventually("well", func() bool { return !strings.Contains(s.rawNodes(), `"ok":false`) })
	s.ok(`block-export-del {"id":"e"}`)
	s.await("BLOCK_EXPORT_DELETED")
	s.ok(`blockdev-del {"node-name":"top"}`)
}

// rawNodes is query-named-block-nodes with what only we tell.
func (s *steered) rawNodes() string {
	s.t.Helper()
	lines := s.raw(`{"execute":"query-named-block-nodes","arguments":{"flat":true}}`+"\n", 1)
	var m struct{ Return any }
	require.NoError(s.t, json.Unmarshal([]byte(lines[0]), &m))
	text, err := json.Marshal(m.Return)
	require.NoError(s.t, err)
	return string(text)
}

// Goal: a server stops although the NFS server below is silent, and says what may be lost; its status says meanwhile how that one is doing. Method: data that was not flushed, silence, and an end.
func TestStopOnASilentNFSServer(t *testing.T) {
	server, _ := onNFS(t)
	server.Put("/export/disk", nfstest.File{SizeBytes: 1 << 20})
	s, socket := serveNFS(t, server.URL("/export/disk"))
	ctl := asProgram(t, programName)
	out, err := s.tool(ctl, "ctl", "--control", filepath.Join(s.dir, "m"), "status")
	require.NoError(t, err, out)
	require.Contains(t, out, "storage disk0 (nfs://127.0.0.1/export/disk?nfsport=")
	require.Contains(t, out, "): answers")
	w := newWriter(t, socket, "e")
	w.write(0, 0x77)
	_, err = io.ReadFull(w.conn, make([]byte, 16))
	require.NoError(t, err)
	server.Silence()
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	require.Error(t, s.cmd.Wait(), "what was not stored is said in the status")
}

// serveNFS is "serve" on the export e of a URL with a monitor.
func serveNFS(t *testing.T, url string) (*steered, string) {
	t.Helper()
	own := startOwnNamed(t, "e", "--control=m", "-f", "raw", "e="+url)
	s := &steered{t: t, cmd: own.cmd, dir: own.cmd.Dir}
	s.conn, s.lines = s.connect()
	return s, own.socket
}
