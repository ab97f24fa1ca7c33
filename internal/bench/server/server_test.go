package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/bench/dummy"
)

// TestMain lets this program play a server: dummy SOCKET.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "dummy" {
		ln, err := net.Listen("unix", os.Args[2])
		if err == nil {
			err = dummy.New(1 << 20).Serve(ln)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// shell is a kind that is a shell script; $0 is this program, $1 the socket, $2 the pid
// file.
func shell(script string, daemonizes bool) Kind {
	return Kind{Name: "script", daemonizes: daemonizes, commandLine: func(s Setup) ([]string, error) {
		program, err := os.Executable()
		return []string{"sh", "-c", script, program, s.socket(), s.pidFile()}, err
	}}
}

// TestStartStop checks a server's life in the foreground and as a daemon: it greets, it
// is the process we say, it is gone after Stop, which may be called again.
func TestStartStop(t *testing.T) {
	for _, k := range []Kind{
		shell(`exec "$0" dummy "$1"`, false),
		shell(`"$0" dummy "$1" >/dev/null 2>&1 & echo $! >"$2"`, true),
	} {
		in, err := Start(k, Setup{Dir: t.TempDir()})
		require.NoError(t, err)
		require.Positive(t, in.Ready)
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", in.PID))
		require.NoError(t, err)
		require.Contains(t, string(command), "\x00dummy\x00")
		require.NoError(t, in.Stop())
		require.Error(t, greeted(in.setup.socket()))
		require.NoError(t, in.Stop())
	}
}

// TestStartFails checks that a server that does not come up is told with its own words,
// and a program that does not exist with the system's.
func TestStartFails(t *testing.T) {
	_, err := Start(shell(`echo the disk is on fire >&2; exit 3`, false), Setup{Dir: t.TempDir()})
	require.ErrorIs(t, err, errExited)
	require.ErrorContains(t, err, "the disk is on fire")
	missing := Kind{Name: "missing", commandLine: func(Setup) ([]string, error) { return []string{"/no/such/program"}, nil }}
	_, err = Start(missing, Setup{Dir: t.TempDir()})
	require.ErrorIs(t, err, unix.ENOENT)
}

// TestKnown checks every row of the table: a name of its own, and for each storage a
// command line with the socket and what is to be served in it.
func TestKnown(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Known() {
		require.False(t, seen[k.Name], k.Name)
		seen[k.Name] = true
		require.False(t, k.Ours && k.Peer, k.Name)
		if k.Direct {
			require.Nil(t, k.commandLine, k.Name)
			continue
		}
		for _, storage := range k.storages {
			s := Setup{Storage: storage, File: "/the/file", SizeBytes: 12345, Dir: t.TempDir(), Programs: Programs{Ours: "ours", GoNBD: "gonbd", Bench: "bench"}}
			argv, err := k.commandLine(s)
			require.NoError(t, err)
			line := strings.Join(argv, " ")
			if config, err := os.ReadFile(filepath.Join(s.Dir, "nbd-server.conf")); err == nil {
				line += string(config)
			}
			require.Contains(t, line, s.socket(), k.Name)
			want := s.File
			if storage == Null || k.Name == "floor" {
				want = "12345"
			}
			require.Contains(t, line, want, k.Name)
			require.Equal(t, storage == Direct, slices.Contains(argv, "none"), k.Name)
		}
	}
	require.False(t, Kind{}.Serves(Cached))
}
