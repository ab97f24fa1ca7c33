package interop_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// reconnecting is QEMU's client that waits for a server to come back, as a production VM's would.
func reconnecting(socket string) string {
	return "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=" + socket + ",file.reconnect-delay=60"
}

// shell is qemu-io as a person uses it: it stays connected between commands.
type shell struct {
	in   io.WriteCloser
	out  *bufio.Reader
	wait func() error
}

const prompt = "qemu-io> "

func startShell(t *testing.T, image string) *shell {
	t.Helper()
	path, err := debianPath("qemu-io")
	require.NoError(t, err)
	cmd := exec.Command(path, "--image-opts", image)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, subject.Start(cmd))
	s := &shell{in: in, out: bufio.NewReader(out)}
	// A client that hangs is ended, which its reader sees as the end of the output.
	hung := time.AfterFunc(clientMax, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { hung.Stop() })
	s.wait = cmd.Wait
	s.untilPrompt(t)
	return s
}

// quit ends the shell while its server is there: without one, it would wait for it to come back first.
func (s *shell) quit() {
	s.in.Close()
	_ = s.wait()
}

// do runs one command and returns what it printed.
func (s *shell) do(t *testing.T, command string) string {
	t.Helper()
	_, err := io.WriteString(s.in, command+"\n")
	require.NoError(t, err)
	out := s.untilPrompt(t)
	require.NotContains(t, out, "failed", command)
	return out
}

func (s *shell) untilPrompt(t *testing.T) string {
	t.Helper()
	var seen strings.Builder
	for !strings.HasSuffix(seen.String(), prompt) {
		b, err := s.out.ReadByte()
		require.NoError(t, err, "qemu-io ended; it said: %s", seen.String())
		seen.WriteByte(b)
	}
	return seen.String()
}

// Goal: a restart of the server is not seen by a VM. Method: qemu-io stays connected with reconnect-delay; the server is
// stopped and started on the same socket between its commands; what was written before is there, and writing goes on.
func TestReconnectBetweenRequests(t *testing.T) {
	file := sparse(t, 16*mib)
	server := serveRaw(t, file)
	io := startShell(t, reconnecting(server.Socket))
	defer io.quit()
	io.do(t, "write -P 0x71 0 1M")
	for range 2 {
		server.Stop(t)
		server = program.Start(t, subject.Options{File: file, Socket: server.Socket, Args: []string{"-f", "raw"}})
		io.do(t, "read -P 0x71 0 1M")
	}
	io.do(t, "write -P 0x72 1M 1M")
	io.do(t, "flush")
	io.do(t, "read -P 0x72 1M 1M")
}

// Goal: requests in flight survive a planned restart: each is answered before the connection closes, or is sent again
// after it. Method: qemu-img bench writes at depth 16 with reconnect-delay while the server is stopped and started;
// it must end without an error, having written every block.
func TestReconnectUnderLoad(t *testing.T) {
	const blocks, blockBytes = 60000, 512
	file := sparse(t, 64*mib)
	server := serveRaw(t, file)
	socket := server.Socket
	bench := make(chan result, 1)
	go func() {
		bench <- client(t, "qemu-img", "bench", "--image-opts", "-w", "-d", "16", "--pattern", "90",
			"-c", "60000", "-s", "512", "-S", "512", reconnecting(socket))
	}()
	written := firstByte(t, file)
	require.Eventually(t, func() bool { return written() == 90 }, clientMax, 5*time.Millisecond, "the load has begun")
	server.Stop(t)
	require.Empty(t, bench, "the load was over before the restart: it proved nothing")
	program.Start(t, subject.Options{File: file, Socket: socket, Args: []string{"-f", "raw"}})
	(<-bench).ok(t)
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{90}, blocks*blockBytes), content[:blocks*blockBytes])
}

func firstByte(t *testing.T, file string) func() byte {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return func() byte {
		var b [1]byte
		_, _ = f.ReadAt(b[:], 0)
		return b[0]
	}
}

// Goal: a server that died without a word (SIGKILL) can be replaced at once. Method: the stale socket it left is taken
// over by the next server, and the connected client finds it.
func TestReconnectAfterKill(t *testing.T) {
	file := sparse(t, 16*mib)
	server := serveRaw(t, file)
	io := startShell(t, reconnecting(server.Socket))
	defer io.quit()
	io.do(t, "write -f -P 0x73 0 1M")
	server.Kill(t)
	program.Start(t, subject.Options{File: file, Socket: server.Socket, Args: []string{"-f", "raw"}})
	io.do(t, "read -P 0x73 0 1M")
	io.do(t, "write -P 0x74 0 1M")
}
