package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/nbd"
)

// started is a server in the foreground that clients can connect to.
type started struct {
	cmd    *exec.Cmd
	socket string
}

// startOwn starts our own door on a socket and waits for its URI, which it prints when clients can connect.
func startOwn(t *testing.T, args ...string) started {
	t.Helper()
	dir := sameDir(t)
	s := started{socket: filepath.Join(dir, "s")}
	s.cmd = exec.CommandContext(t.Context(), asProgram(t, programName), append([]string{"serve", "--log-level=off", "--print-uri", "-k", s.socket}, args...)...)
	s.cmd.Dir, s.cmd.Stderr = dir, os.Stderr
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, s.cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "nbd+unix:///?socket="+s.socket, strings.TrimSpace(line))
	return s
}

// Goal: each of the signals that stop a server stops it in order. Method: status 0, no socket and no pid file afterwards,
// with a client connected.
func TestSignalStops(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			s := startOwn(t, "--pid-file=pid", "d.img")
			conn, err := net.Dial("unix", s.socket)
			require.NoError(t, err)
			defer conn.Close()
			client, err := nbd.NewClient(conn)
			require.NoError(t, err)
			_, err = client.Go("")
			require.NoError(t, err)
			require.NoError(t, s.cmd.Process.Signal(signal))
			_, err = io.ReadAll(conn) // up to the end of file: the client is not told anything
			require.NoError(t, err)
			require.NoError(t, s.cmd.Wait())
			require.NoFileExists(t, s.socket)
			require.NoFileExists(t, filepath.Join(s.cmd.Dir, "pid"))
		})
	}
}

// Goal: a second signal ends a server that waits for a client. Method: a client that asks for much and takes little; the
// status is that of an abandoned stop, and the socket is gone nevertheless.
func TestSecondSignalAbandons(t *testing.T) {
	s := startOwn(t, "null-co://")
	conn, err := net.Dial("unix", s.socket)
	require.NoError(t, err)
	defer conn.Close()
	client, err := nbd.NewClient(conn)
	require.NoError(t, err)
	_, err = client.Go("")
	require.NoError(t, err)
	_, err = conn.Write(readRequest(32 << 20))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 16))
	require.NoError(t, err)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, s.cmd.Wait())
	require.Equal(t, 1, s.cmd.ProcessState.ExitCode())
	require.NoFileExists(t, s.socket)
}

// readRequest is an NBD_CMD_READ at offset 0.
func readRequest(length uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(nbd.MagicRequest))
	b = binary.BigEndian.AppendUint32(b, uint32(nbd.CmdRead))
	b = binary.BigEndian.AppendUint64(b, 1) // cookie
	b = binary.BigEndian.AppendUint64(b, 0) // offset
	return binary.BigEndian.AppendUint32(b, length)
}

// Goal: a signal reaches the command of --run, whose end ends the server. Method: a command that says when it is ready
// and what it got.
func TestSignalReachesCommand(t *testing.T) {
	dir := sameDir(t)
	cmd := exec.CommandContext(t.Context(), asProgram(t, programName), "serve", "--log-level=off", "d.img", "--run",
		`trap 'echo got it; exit 5' TERM; echo ready; while :; do read line || exit 6; done`)
	cmd.Dir = dir
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	line, err = lines.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "got it\n", line)
	require.Error(t, cmd.Wait())
	require.Equal(t, 5, cmd.ProcessState.ExitCode())
}
