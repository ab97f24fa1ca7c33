package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tool runs a client of others in the daemon's directory and returns what it says.
func (s *steered) tool(name string, args ...string) (string, error) {
	for n := range args {
		args[n] = strings.ReplaceAll(args[n], "DIR", s.dir)
	}
	cmd := exec.CommandContext(s.t.Context(), name, args...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *steered) qemuIO(commands ...string) {
	s.t.Helper()
	args := []string{"-f", "raw"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := s.tool("qemu-io", append(args, "nbd+unix:///e?socket=DIR/s")...)
	require.NoError(s.t, err, out)
	require.NotContains(s.t, out, "failed")
}

// ok is do for a command that has to succeed.
func (s *steered) ok(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		require.Equal(s.t, "{}", s.do(line), line)
	}
}

// Goal: a disk lives a whole life under a monitor, and keeps its data. Method: QEMU's own tools write and verify between the steps: a node
// is added and exported, a filter inserted, all moved to an iothread, resized, reopened, snapshot of its options taken away again.
func TestDaemonAtWork(t *testing.T) {
	s := steer(t, asProgram(t, qsdName))
	s.ok(
		`blockdev-add {"driver":"file","node-name":"f","filename":"DIR/d.img"}`,
		`blockdev-add {"driver":"raw","node-name":"d","file":"f"}`,
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
		`block-export-add {"type":"nbd","id":"e","node-name":"d","name":"e","writable":true}`)
	s.qemuIO("write -P 0x11 0 64k", "read -P 0x11 0 64k")
	s.ok(
		`object-add {"qom-type":"throttle-group","id":"g","limits":{"iops-total":10000}}`,
		`blockdev-add {"driver":"throttle","node-name":"t","throttle-group":"g","file":"d"}`,
		`x-blockdev-insert {"node-name":"t","above":"d"}`)
	s.qemuIO("read -P 0x11 0 64k", "write -P 0x22 64k 64k")
	s.ok(
		`object-add {"qom-type":"iothread","id":"io"}`,
		`x-blockdev-set-iothread {"node-name":"t","iothread":"io","force":true}`)
	s.qemuIO("read -P 0x22 64k 64k")
	s.ok(`block_resize {"node-name":"t","size":4194304}`)
	s.qemuIO("write -P 0x33 3M 64k", "read -P 0x11 0 64k", "read -P 0x33 3M 64k")
	info, err := s.tool("qemu-img", "info", "-f", "raw", "nbd+unix:///e?socket=DIR/s")
	require.NoError(t, err, info)
	require.Contains(t, info, "4 MiB")
	size, err := s.tool("nbdinfo", "--size", "nbd+unix:///e?socket=DIR/s")
	require.NoError(t, err, size)
	require.Equal(t, "4194304\n", size)

	// Nobody loses the right to write while somebody does.
	require.Contains(t, s.do(`blockdev-reopen {"options":[{"driver":"file","node-name":"f","filename":"DIR/d.img","read-only":true}]}`), "read-only")
	s.qemuIO("write -P 0x44 128k 64k")
	s.ok(
		`blockdev-reopen {"options":[{"driver":"file","node-name":"f","filename":"DIR/d.img","discard":"unmap"},{"driver":"raw","node-name":"d","file":"f"}]}`,
		`x-blockdev-remove {"node-name":"t"}`,
		`blockdev-del {"node-name":"t"}`,
		`object-del {"id":"g"}`)
	s.qemuIO("read -P 0x44 128k 64k", "discard 0 64k", "flush")
	s.ok(`block-export-del {"id":"e"}`)
	s.await("BLOCK_EXPORT_DELETED")
	s.ok(
		`object-del {"id":"io"}`,
		`blockdev-reopen {"options":[{"driver":"file","node-name":"f","filename":"DIR/d.img","read-only":true},{"driver":"raw","node-name":"d","file":"f","read-only":true}]}`,
		`blockdev-del {"node-name":"d"}`,
		`blockdev-del {"node-name":"f"}`,
		`quit`)
	require.Equal(t, ended, s.wait())
	out, err := s.tool("qemu-io", "-f", "raw", "-c", "read -P 0x22 64k 64k", "-c", "read -P 0x44 128k 64k", "-c", "read -P 0x33 3M 64k", "d.img")
	require.NoError(t, err, out)
}

// Goal: what is injected can be changed while requests are held by it. Method: reads are held; a client waits; the rules are taken away; an
// error is put in their place.
func TestDaemonInjects(t *testing.T) {
	s := steer(t, asProgram(t, qsdName), "--blockdev", "null-co,node-name=n,size=1048576", "--blockdev", `{"driver":"inject","node-name":"i","file":"n","rules":[{"ops":["read"],"offset":65536,"length":512,"hold":true}]}`,
		"--nbd-server", "addr.type=unix,addr.path=DIR/s", "--export", "nbd,id=e,node-name=i,name=e,writable=on")
	s.qemuIO("read 0 4k")
	done := make(chan error, 1)
	go func() {
		_, err := s.tool("qemu-io", "-f", "raw", "-c", "read 64k 512", "nbd+unix:///e?socket=DIR/s")
		done <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(s.do("x-query-inflight"), `"offset":65536`) }, commandMax, 10*time.Millisecond)
	s.ok(`blockdev-reopen {"options":[{"driver":"inject","node-name":"i","file":"n","rules":[{"ops":["write"],"errno":28}]}]}`)
	require.NoError(t, <-done)
	out, _ := s.tool("qemu-io", "-f", "raw", "-c", "write 0 512", "nbd+unix:///e?socket=DIR/s")
	require.Contains(t, out, "No space left on device")
	require.Contains(t, s.do(`blockdev-reopen {"options":[{"driver":"inject","node-name":"i","file":"n","rules":[{}]}]}`), "the rule does nothing")
	s.ok(`blockdev-reopen {"options":[{"driver":"inject","node-name":"i","file":"n"}]}`)
	s.qemuIO("write 0 512")

	// What is held does not hold up the end.
	s.ok(`blockdev-reopen {"options":[{"driver":"inject","node-name":"i","file":"n","rules":[{"ops":["read"],"offset":65536,"length":512,"hold":true}]}]}`)
	go func() {
		_, err := s.tool("qemu-io", "-f", "raw", "-c", "read 64k 512", "nbd+unix:///e?socket=DIR/s")
		done <- err
	}()
	require.Eventually(t, func() bool { return strings.Contains(s.do("x-query-inflight"), `"offset":65536`) }, commandMax, 10*time.Millisecond)
	require.Equal(t, ended, s.end(syscall.SIGTERM))
	<-done
}

// Goal: exports of the daemon are served over TLS, by objects. Method: qemu-img with the certificates of a client reads, without TLS nothing.
func TestDaemonTLS(t *testing.T) {
	s := steer(t, asProgram(t, qsdName))
	out, err := s.tool("sh", "-c", makeCertificates)
	require.NoError(t, err, out)
	s.ok(
		`object-add {"qom-type":"tls-creds-x509","id":"tls","dir":"DIR","endpoint":"server","verify-peer":false}`,
		`blockdev-add {"driver":"null-co","node-name":"n","size":1048576,"read-zeroes":true}`,
		`nbd-server-start {"addr":{"type":"inet","data":{"host":"127.0.0.1","port":"0"}},"tls-creds":"tls"}`,
		`nbd-server-stop`,
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}},"tls-creds":"tls"}`,
		`block-export-add {"type":"nbd","id":"e","node-name":"n","name":"e"}`)
	require.Equal(t, "GenericError: object 'tls' is in use, can not be deleted", s.do(`object-del {"id":"tls"}`))
	out, err = s.tool("qemu-img", "info", "--object", "tls-creds-x509,id=t,dir=DIR,endpoint=client,verify-peer=off", "--image-opts",
		"driver=nbd,server.type=unix,server.path=DIR/s,export=e,tls-creds=t,tls-hostname=localhost")
	require.NoError(t, err, out)
	require.Contains(t, out, "1 MiB")
	out, err = s.tool("qemu-img", "info", "nbd+unix:///e?socket=DIR/s")
	require.Error(t, err)
	require.Contains(t, out, "TLS")
	s.ok(`nbd-server-stop`, `object-del {"id":"tls"}`)

	// The same with a key that has a password. Credentials keep it when the secret goes.
	out, err = s.tool("openssl", "pkcs8", "-topk8", "-in", "server-key.pem", "-out", "locked.pem", "-passout", "pass:sesame")
	require.NoError(t, err, out)
	out, err = s.tool("mv", "locked.pem", "server-key.pem")
	require.NoError(t, err, out)
	locked := `object-add {"qom-type":"tls-creds-x509","id":"tls","dir":"DIR","endpoint":"server","verify-peer":false,"passwordid":"s"}`
	require.Equal(t, "GenericError: No secret with id 's'", s.do(locked))
	s.ok(`object-add {"qom-type":"secret","id":"s","data":"open"}`)
	require.Regexp(t, `server-key\.pem: the password is wrong$`, s.do(locked))
	s.ok(
		`object-del {"id":"s"}`, `object-add {"qom-type":"secret","id":"s","data":"sesame"}`, locked, `object-del {"id":"s"}`,
		`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}},"tls-creds":"tls"}`,
		`block-export-add {"type":"nbd","id":"e","node-name":"n","name":"e"}`)
	s.ok(`object-add {"qom-type":"secret","id":"s","data":"sesame"}`)
	require.Equal(t, "GenericError: Property 'secret.data' not found", s.do(`qom-get {"path":"s","property":"data"}`))
	out, err = s.tool("qemu-img", "info", "--object", "tls-creds-x509,id=t,dir=DIR,endpoint=client,verify-peer=off", "--image-opts",
		"driver=nbd,server.type=unix,server.path=DIR/s,export=e,tls-creds=t,tls-hostname=localhost")
	require.NoError(t, err, out)
	require.Contains(t, out, "1 MiB")
	s.ok(`quit`)
	require.Equal(t, ended, s.wait())
}

// makeCertificates makes an authority and a server for localhost.
const makeCertificates = `
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca-cert.pem
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server-key.pem -out server.csr
printf 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth' >ext
openssl x509 -req -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out server-cert.pem
`

// Goal: a monitor of "serve" can do no harm to what the command line asked for, and can end it. Method: the node that is served stays, the
// server too, a drain holds it still, quit and signals end it.
func TestServeControl(t *testing.T) {
	for _, end := range []string{"quit", "signal", "signal under a drain"} {
		s := startOwn(t, "--control=m", "--pid-file=pid", "d.img")
		m := &steered{t: t, cmd: s.cmd, dir: s.cmd.Dir}
		m.conn, m.lines = m.connect()
		require.Equal(t, "GenericError: Node disk0 is in use", m.do(`blockdev-del {"node-name":"disk0"}`))
		require.Contains(t, m.do(`nbd-server-stop`), "use quit")
		require.Contains(t, m.do(`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s2"}}}`), "NBD server already running")
		require.Contains(t, m.do(`query-block-exports`), `"node-name":"disk0"`)
		m.ok(`blockdev-add {"driver":"null-co","node-name":"n","size":1048576}`,
			`block-export-add {"type":"nbd","id":"more","node-name":"n","name":"more"}`,
			`object-add {"qom-type":"iothread","id":"io"}`,
			`x-blockdev-set-iothread {"node-name":"n","iothread":"io","force":true}`)
		switch end {
		case "quit":
			m.ok("quit")
		case "signal under a drain":
			require.Contains(t, m.do(`x-drain-begin {"exports":["more"],"lease":600}`), "drain")
			fallthrough
		default:
			require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
		}
		require.NoError(t, s.cmd.Wait(), end)
		require.NoFileExists(t, s.socket)
		require.NoFileExists(t, filepath.Join(m.dir, "pid"))
		require.NoFileExists(t, filepath.Join(m.dir, "m"))
	}
}
