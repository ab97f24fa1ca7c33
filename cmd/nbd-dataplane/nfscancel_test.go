package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/interop/subject"
)

// imageOn makes a qcow2 image on an NFS server.
func imageOn(t *testing.T, server *nfstest.Server, path string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", name, "4M").CombinedOutput()
	require.NoError(t, err, string(out))
	contents, err := os.ReadFile(name)
	require.NoError(t, err)
	server.Put(path, nfstest.File{Contents: contents})
}

// checked is what qemu-img finds wrong with an image, and what the image contains at an offset.
func checked(t *testing.T, contents []byte, offset string, pattern int) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "check")
	require.NoError(t, os.WriteFile(name, contents, 0o600))
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", name).CombinedOutput()
	require.NoError(t, err, string(out))
	out, err = exec.Command("qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("read -P %d %s 512", pattern, offset), name).CombinedOutput()
	require.NoError(t, err, string(out))
	require.NotContains(t, string(out), "failed")
}

// inFlightNow waits until so many requests of clients are in flight.
func (s *steered) inFlightNow(n int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d in flight", n), func() bool {
		sum := 0
		for _, c := range s.clientsNow() {
			sum += c.InFlight
		}
		return sum == n
	})
}

// Goal: an export goes while the NFS server below is silent, when that is demanded, with requests of all kinds in flight, and so do clients that are thrown out; nothing that was
// acknowledged is lost, and an image is right. Method: raw files and qcow2 images; writes that are acknowledged and flushed, then silence, more requests, and the end of the clients one way or the other; then the
// server speaks, another client writes to the same places, and the image is looked at.
func TestExportGoesInAnOutage(t *testing.T) {
	for _, format := range []string{"raw", "qcow2"} {
		for _, way := range []string{"hard", "disconnect"} {
			t.Run(format+"/"+way, func(t *testing.T) {
				server, _ := onNFS(t)
				server.Put("/export/disk", nfstest.File{SizeBytes: 4 << 20})
				if format == "qcow2" {
					imageOn(t, server, "/export/disk")
				}
				s := steer(t, asProgram(t, qsdName))
				add := `block-export-add {"type":"nbd","id":"e","node-name":"d","name":"e","writable":true}`
				s.ok(fmt.Sprintf(`blockdev-add {"driver":%q,"node-name":"d","file":{"driver":"nfs","node-name":"f","server":{"type":"inet","host":%q},"path":"/export/disk","nfsport":%d,"mountport":%d}}`,
					format, server.Address(), server.NFSPort(), server.MountPort()),
					`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`, add)
				socket := filepath.Join(s.dir, "s")
				gone := func() { s.eventually("gone", func() bool { return len(s.clientsNow()) == 0 }) }
				qemuIO(t, socket, "write -P 1 0 64k", "write -P 1 1M 512", "flush")
				writers := []*writer{newWriter(t, socket, "e"), newWriter(t, socket, "e")}
				server.Silence()
				for n, w := range writers {
					for k := range 4 {
						w.write(uint64(n)*512+uint64(k)<<20, 2) // in place, and to be allocated
					}
				}
				s.inFlightNow(8)
				if way == "hard" {
					s.ok(`block-export-del {"id":"e","mode":"hard"}`)
				} else {
					for _, c := range s.clientsNow() {
						s.ok(fmt.Sprintf(`x-client-disconnect {"id":%d}`, c.ID))
					}
					gone()
					s.ok(`block-export-del {"id":"e"}`)
				}
				s.await("BLOCK_EXPORT_DELETED")
				for _, w := range writers {
					w.cut("nobody is answered")
				}
				require.Contains(t, s.rawNodes(), `"x-in-flight":0`)
				server.Speak()
				s.ok(add)
				qemuIO(t, socket, "read -P 1 1k 63k", "write -P 3 0 512", "write -P 3 2M 1k", "flush", "read -P 3 0 512", "read -P 3 2M 1k", "read -P 0 3500k 64k")
				gone()
				s.ok(`block-export-del {"id":"e"}`)
				s.await("BLOCK_EXPORT_DELETED")
				s.ok(`blockdev-del {"node-name":"d"}`)
				stable := server.Stable("/export/disk")
				if format == "qcow2" {
					checked(t, stable, "0", 3)
					checked(t, stable, "2M", 3)
					return
				}
				require.Equal(t, bytes.Repeat([]byte{3}, 512), stable[:512])
				require.Equal(t, bytes.Repeat([]byte{1}, 64<<10-1024), stable[1024:64<<10])
				require.Equal(t, bytes.Repeat([]byte{3}, 1024), stable[2<<20:][:1024])
			})
		}
	}
}

// Goal: at the end of the program, when patience is over, requests that wait for a silent NFS server end, and another image is closed as it should be; what was not stored is said, with status 1. Method: a raw file on
// NFS with writes in flight and an image on the disk with writes that are not flushed; the end by a second signal, and by --stop-timeout.
func TestEndOnASilentNFSServer(t *testing.T) {
	for _, way := range []string{"signal", "timeout"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			server, _ := onNFS(t)
			server.Put("/export/disk", nfstest.File{SizeBytes: 1 << 20})
			dir := sameDir(t)
			local := filepath.Join(dir, "local")
			require.NoError(t, exec.Command("qemu-img", "create", "-q", "-f", "qcow2", local, "4M").Run())
			timeout := map[string]string{"signal": "3600", "timeout": "1"}[way]
			cmd := exec.CommandContext(t.Context(), asProgram(t, programName), "serve", "--log-format=text", "--log-level=warn", "-k", filepath.Join(dir, "s"), "--pid-file=pid",
				"--stop-timeout="+timeout, "e="+server.URL("/export/disk"), "l="+local)
			said := &bytes.Buffer{}
			cmd.Dir, cmd.Stderr = dir, said
			require.NoError(t, subject.Start(cmd))
			socket := filepath.Join(dir, "s")
			require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "pid")); return err == nil }, commandMax, time.Millisecond)
			answered := func(w *writer) {
				t.Helper()
				_, err := io.ReadFull(w.conn, make([]byte, 16))
				require.NoError(t, err)
			}
			onDisk, remote := newWriter(t, socket, "l"), newWriter(t, socket, "e")
			onDisk.write(1<<20, 5)
			answered(onDisk)
			remote.write(0, 5)
			answered(remote)
			server.Silence()
			remote.write(4096, 6)
			asked(t, remote.conn)
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			if way == "signal" {
				require.Eventually(t, func() bool { _, err := os.Stat(socket); return err != nil }, commandMax, time.Millisecond, "it is stopping")
				require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			}
			remote.cut("nobody is told that it was done, or not")
			require.Error(t, cmd.Wait())
			require.Equal(t, 1, cmd.ProcessState.ExitCode())
			require.Contains(t, said.String(), "what waits for NFS servers is ended early")
			require.Contains(t, said.String(), "flush node disk0 before closing: ")
			require.NotContains(t, said.String(), "disk1")
			contents, err := os.ReadFile(local)
			require.NoError(t, err)
			checked(t, contents, "1M", 5)
		})
	}
}

// asked returns when the server has taken all that a client has sent: it refuses what comes last.
func asked(t *testing.T, conn net.Conn) {
	t.Helper()
	refused := readRequest(512)
	refused[16] = 0x7f // the highest byte of the offset
	_, err := conn.Write(refused)
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 16))
	require.NoError(t, err)
}

// Goal: how long requests wait is changed while they do, for nodes of serve and of monitors, through images too, and told; a node becomes read-only and can be written again, but
// not where it was opened for reading. Method: a request in an outage, ctl and a monitor; wrong values.
func TestTimeoutWhileRequestsWait(t *testing.T) {
	server, _ := onNFS(t)
	server.Put("/export/disk", nfstest.File{SizeBytes: 1 << 20})
	s, socket := serveNFS(t, server.URL("/export/disk"))
	ctl := func(args ...string) (string, error) {
		return s.tool(asProgram(t, programName), append([]string{"ctl", "--control", filepath.Join(s.dir, "m")}, args...)...)
	}
	server.Silence()
	reading := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "raw", "-c", "read 0 512", "nbd+unix:///e?socket="+socket)
	require.NoError(t, subject.Start(reading))
	s.inFlightNow(1)
	out, err := ctl("timeout", "e", "1")
	require.NoError(t, err, out)
	require.Regexp(t, `^disk0 \(nfs://.*\): requests wait 1s, was requests wait for ever\n$`, out)
	require.Error(t, reading.Wait())
	out, err = ctl("status")
	require.NoError(t, err, out)
	require.Contains(t, out, "; requests wait 1s")
	out, err = ctl("timeout", "disk0", "none", "--json")
	require.NoError(t, err, out)
	require.Contains(t, out, `"was": 1`)
	require.Contains(t, out, `"timeout": 0`)
	server.Speak()
	qemuIO(t, socket, "write -P 7 0 512", "flush", "read -P 7 0 512")
	for _, bad := range [][]string{{"timeout", "e"}, {"timeout", "e", "-1"}, {"timeout", "e", "0.5"}, {"timeout", "e", "9000h"}, {"timeout", "none", "5"}} {
		out, err = ctl(bad...)
		require.Error(t, err, out)
	}
	require.Contains(t, s.do(`x-blockdev-set-timeout {"node-name":"disk0","timeout":-1}`), "timeout")
	require.NoError(t, s.cmd.Process.Signal(os.Interrupt))
	require.NoError(t, s.cmd.Wait())

	s = steer(t, asProgram(t, qsdName))
	options := func(name, more string) string {
		return fmt.Sprintf(`{"driver":"nfs","node-name":%q,"server":{"type":"inet","host":%q},"path":"/export/disk","nfsport":%d,"mountport":%d%s}`,
			name, server.Address(), server.NFSPort(), server.MountPort(), more)
	}
	s.ok(`blockdev-add {"driver":"raw","node-name":"top","file":`+options("f", "")+`}`, `blockdev-add `+options("r", `,"read-only":true`),
		`blockdev-add {"driver":"null-co","node-name":"n","size":1048576}`)
	require.Contains(t, s.do(`x-blockdev-set-timeout {"node-name":"top","timeout":77}`), `"node-name":"f"`)
	require.Contains(t, s.rawNodes(), `"timeout":77`)
	require.Contains(t, s.do(`x-blockdev-set-timeout {"node-name":"n","timeout":5}`), "not on storage that has a timeout")
	s.ok(`blockdev-add ` + options("w", ""))
	reopen := func(o string) string { return `blockdev-reopen {"options":[` + o + `]}` }
	writable := `block-export-add {"type":"nbd","id":"e","node-name":"w","name":"e","writable":true}`
	s.ok(`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`, reopen(options("w", `,"read-only":true`)))
	require.Contains(t, s.do(writable), "Cannot export read-only node as writable")
	s.ok(reopen(options("w", "")), writable)
	qemuIO(t, filepath.Join(s.dir, "s"), "write -P 8 0 512")
	require.Contains(t, s.do(reopen(options("w", `,"read-only":true`))), "GenericError", "somebody writes")
	require.Contains(t, s.do(reopen(options("r", ""))), "Cannot open a read-only mount as read-write")
	s.ok(reopen(options("r", `,"read-only":true,"timeout":3`)))
}

// Goal: wherever in its work an image on NFS is when its export is made to go, what was flushed before is there and nothing in it contradicts itself. Method: rounds from a seed, in which the server falls
// silent at some call under writes that allocate, zero and discard, and under flushes; the export goes by force, the server speaks, and the next export of the same node shows what was flushed; at the end the
// image is checked.
func TestImageWhoseExportsGo(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	server, _ := onNFS(t)
	imageOn(t, server, "/export/disk")
	s := steer(t, asProgram(t, qsdName))
	s.ok(fmt.Sprintf(`blockdev-add {"driver":"qcow2","node-name":"d","discard":"unmap","l2-cache-size":65536,"file":{"driver":"nfs","node-name":"f","server":{"type":"inet","host":%q},"path":"/export/disk","nfsport":%d,"mountport":%d}}`,
		server.Address(), server.NFSPort(), server.MountPort()), `nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`)
	socket := filepath.Join(s.dir, "s")
	for round := range 12 {
		s.ok(`block-export-add {"type":"nbd","id":"e","node-name":"d","name":"e","writable":true}`)
		if round > 0 {
			qemuIO(t, socket, fmt.Sprintf("read -P %d %dk 64k", round, 256*round-256))
		}
		qemuIO(t, socket, fmt.Sprintf("write -P %d %dk 64k", round+1, 256*round), "flush")
		args := []string{"-f", "raw", "-d", "unmap"}
		for range 40 {
			at := 256*random.IntN(14) + 64 + random.IntN(100)
			args = append(args, "-c", []string{
				fmt.Sprintf("aio_write -P 99 %dk %dk", at, 1+random.IntN(80)), fmt.Sprintf("aio_write -z %dk 8k", at), fmt.Sprintf("aio_write -z -u %dk 80k", at),
				fmt.Sprintf("discard %dk 70k", at), "aio_flush", fmt.Sprintf("aio_read %dk 64k", at),
			}[random.IntN(6)])
		}
		silence := server.Inject(nfstest.Rule{First: 1 + random.IntN(60), Fault: nfstest.Fault{Before: server.Silence}})
		client := exec.CommandContext(t.Context(), "qemu-io", append(args, "nbd+unix:///e?socket="+socket)...)
		require.NoError(t, subject.Start(client))
		gone := make(chan error, 1)
		go func() { gone <- client.Wait() }()
		select {
		case <-gone: // it was done before that call came
		case <-time.After(time.Duration(random.IntN(300)) * time.Millisecond):
		}
		s.ok(`block-export-del {"id":"e","mode":"hard"}`)
		s.await("BLOCK_EXPORT_DELETED")
		silence()
		server.Speak()
	}
	s.ok(`blockdev-del {"node-name":"d"}`)
	name := filepath.Join(t.TempDir(), "check")
	require.NoError(t, os.WriteFile(name, server.Stable("/export/disk"), 0o600))
	out, err := exec.Command("qemu-img", "check", "-f", "qcow2", name).CombinedOutput()
	require.NoError(t, err, "seed %d: %s", seed, out)
}
