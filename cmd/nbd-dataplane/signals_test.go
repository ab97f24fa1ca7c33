package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/interop/subject"
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
	return startOwnNamed(t, "", args...)
}

// startOwnNamed is startOwn with the name of the first export.
func startOwnNamed(t *testing.T, name string, args ...string) started {
	t.Helper()
	dir := sameDir(t)
	s := started{socket: filepath.Join(dir, "s")}
	s.cmd = exec.CommandContext(t.Context(), asProgram(t, programName), append([]string{"serve", "--log-level=off", "--print-uri", "-k", s.socket}, args...)...)
	s.cmd.Dir, s.cmd.Stderr = dir, os.Stderr
	stdout, err := s.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, subject.Start(s.cmd))
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "nbd+unix:///"+name+"?socket="+s.socket, strings.TrimSpace(line))
	return s
}

// Goal: a daemon that waits for its first monitor can be stopped. Method: a signal as soon as the socket is there, which is gone then.
func TestSignalStopsTheWaitForAMonitor(t *testing.T) {
	dir := sameDir(t)
	cmd := exec.CommandContext(t.Context(), asProgram(t, programName), "daemon", "--chardev", "socket,id=m,path=qmp,server=on", "--monitor", "m")
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, subject.Start(cmd))
	require.Eventually(t, func() bool {
		_, err := os.Lstat(filepath.Join(dir, "qmp"))
		return err == nil
	}, commandMax, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	said, err := io.ReadAll(stderr)
	require.NoError(t, err)
	require.Contains(t, string(said), "stopped while waiting for a monitor to connect")
	require.Error(t, cmd.Wait())
	require.NoFileExists(t, filepath.Join(dir, "qmp"))
}

// Goal: with --on-stop=retire a client that stays is told at a stop that the server is going. Method: a client that asks until it is refused, and leaves.
func TestStopRetires(t *testing.T) {
	s := startOwn(t, "--on-stop=retire", "null-co://")
	conn, err := net.Dial("unix", s.socket)
	require.NoError(t, err)
	defer conn.Close()
	client, err := nbd.NewClient(conn)
	require.NoError(t, err)
	_, err = client.Go("")
	require.NoError(t, err)
	flush := binary.BigEndian.AppendUint64([]byte{0x25, 0x60, 0x95, 0x13, 0, 0, 0, 3}, 1)
	flush = append(flush, make([]byte, 12)...)
	for code, asked := uint32(0), 0; code == 0; asked++ {
		if asked == 1 { // an answer says that the server counts the client among those of the export
			require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
		}
		_, err = conn.Write(flush)
		require.NoError(t, err)
		reply := make([]byte, 16)
		_, err = io.ReadFull(conn, reply)
		require.NoError(t, err)
		code = binary.BigEndian.Uint32(reply[4:])
		require.Contains(t, []uint32{0, uint32(nbd.EShutdown)}, code)
	}
	require.NoError(t, conn.Close())
	require.NoError(t, s.cmd.Wait())
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

// askForMuch returns a client that has asked for more than a socket holds and has taken the header of the reply.
func askForMuch(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	client, err := nbd.NewClient(conn)
	require.NoError(t, err)
	_, err = client.Go("")
	require.NoError(t, err)
	_, err = conn.Write(readRequest(32 << 20))
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 16))
	require.NoError(t, err)
	return conn
}

// Goal: a second signal ends a server that waits for a client. Method: a client that asks for much and takes little; the
// status is that of an abandoned stop, and the socket is gone nevertheless.
func TestSecondSignalAbandons(t *testing.T) {
	s := startOwn(t, "null-co://")
	askForMuch(t, s.socket)
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, s.cmd.Wait())
	require.Equal(t, 1, s.cmd.ProcessState.ExitCode())
	require.NoFileExists(t, s.socket)
}

// Goal: a signal that comes twice in a row, as timeout(1) sends it, is one: the stop is in order, and a later one has it hurry. Method: signals by the clock of the test, since a
// server on a busy machine may see them as far apart as a person would send them.
func TestSignalSentTwiceIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signals := make(chan os.Signal)
		stopped, hurried := 0, 0
		go heed(signals, func(os.Signal) { stopped++ }, func(os.Signal) { hurried++ })
		for range 2 {
			signals <- syscall.SIGTERM
			<-time.After(echoMax - 1)
			synctest.Wait()
			require.Equal(t, []int{1, 0}, []int{stopped, hurried})
		}
		signals <- syscall.SIGTERM
		synctest.Wait()
		require.Equal(t, []int{1, 1}, []int{stopped, hurried})
		close(signals)
	})
}

// Goal: a signal that comes again at once is the same, any other, and a later one, is not. Method: signals by the clock of the test.
func TestSignalSeenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen signalSeen
		require.False(t, seen.again(syscall.SIGTERM))
		require.True(t, seen.again(syscall.SIGTERM))
		require.False(t, seen.again(syscall.SIGINT))
		<-time.After(echoMax)
		require.False(t, seen.again(syscall.SIGINT))
	})
}

// Goal: the first signal to a server that is stopping already abandons nothing. Method: --run's command has ended and a client
// that has read a part of its reply keeps the stop waiting; after the signal it gets the rest, and the status is the command's.
func TestFirstSignalAbandonsNothing(t *testing.T) {
	s := startOwn(t, "null-co://", "--run", "n=0; until test -e go || test $((n += 1)) -gt 1200; do sleep 0.05; done; exit 5")
	conn := askForMuch(t, s.socket)
	require.NoError(t, os.WriteFile(filepath.Join(s.cmd.Dir, "go"), nil, 0o600))
	require.Eventually(t, func() bool { _, err := os.Stat(s.socket); return err != nil }, commandMax, time.Millisecond, "it is stopping")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
	rest, err := io.Copy(io.Discard, conn)
	require.NoError(t, err)
	require.Equal(t, int64(32<<20), rest)
	require.Error(t, s.cmd.Wait())
	require.Equal(t, 5, s.cmd.ProcessState.ExitCode())
}

// Goal: a second signal ends a server whose --run command does not listen to the first. Method: a command that ignores SIGTERM;
// the log tells when the first has arrived. The private socket goes.
func TestSecondSignalAbandonsCommand(t *testing.T) {
	dir := sameDir(t)
	cmd := exec.CommandContext(t.Context(), asProgram(t, programName), "serve", "--log-format=text", "d.img", "--run",
		`trap '' TERM; echo "$unixsocket"; while read line; do :; done`)
	cmd.Dir = dir
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer stdin.Close() // which ends the command
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, subject.Start(cmd))
	socket, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	for log := bufio.NewReader(stderr); ; {
		line, err := log.ReadString('\n')
		require.NoError(t, err)
		if strings.Contains(line, "stopping") {
			break
		}
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	state, err := cmd.Process.Wait()
	require.NoError(t, err)
	require.Equal(t, 1, state.ExitCode())
	require.NoDirExists(t, filepath.Dir(strings.TrimSpace(socket)))
}

// Goal: a log that nobody reads does not hold up the end of a server, neither an orderly one nor one of an impatient person. Method: a
// pipe that the test fills up after the start, so that the server waits with its first word about the first signal; a client that takes
// little of what it has asked for holds up the orderly end of the second one. The statuses tell the two apart.
func TestUnreadLogHoldsUpNoEnd(t *testing.T) {
	for status, signals := range [][]syscall.Signal{{syscall.SIGTERM}, {syscall.SIGTERM, syscall.SIGINT}} {
		cmd := startUnread(t)
		socket := filepath.Join(cmd.Dir, "s")
		if len(signals) > 1 {
			askForMuch(t, socket)
		}
		for _, sig := range signals {
			require.NoError(t, cmd.Process.Signal(sig))
		}
		state, err := cmd.Process.Wait()
		require.NoError(t, err)
		require.Equal(t, status, state.ExitCode())
		require.NoFileExists(t, socket)
	}
}

// startUnread starts a server whose standard error is a pipe that is full by the time it is returned.
func startUnread(t *testing.T) *exec.Cmd {
	dir := sameDir(t)
	unread, log, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { unread.Close() })
	defer log.Close()
	cmd := exec.CommandContext(t.Context(), asProgram(t, programName), "serve", "--print-uri", "-k", filepath.Join(dir, "s"), "null-co://")
	cmd.Dir, cmd.Stderr = dir, log
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, subject.Start(cmd))
	_, err = bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	// A description of its own: the server's stays a blocking one.
	filler, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", log.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(filler)
	for err == nil {
		_, err = unix.Write(filler, []byte{'x'})
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	return cmd
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
	require.NoError(t, subject.Start(cmd))
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
