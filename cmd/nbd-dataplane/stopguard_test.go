package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
	"nbd-dataplane/nbd"
)

// startHung starts a server, which writes a pid file, on a disk that never answers, and returns it with a client.
func startHung(t *testing.T, args ...string) (cmd *exec.Cmd, client net.Conn, said *bytes.Buffer) {
	t.Helper()
	dir := sameDir(t)
	for n := range args {
		args[n] = strings.ReplaceAll(args[n], "DIR", dir)
	}
	cmd = exec.CommandContext(t.Context(), asProgram(t, programName), args...)
	said = &bytes.Buffer{}
	cmd.Dir, cmd.Stderr = dir, said
	require.NoError(t, subject.Start(cmd))
	require.Eventually(t, func() bool { _, err := os.Stat(filepath.Join(dir, "pid")); return err == nil }, commandMax, time.Millisecond)
	client, err := net.Dial("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	c, err := nbd.NewClient(client)
	require.NoError(t, err)
	_, err = c.Go("")
	require.NoError(t, err)
	return cmd, client, said
}

// askInVain asks for what never comes, and then for what is refused: with that answer the server has taken both.
func askInVain(t *testing.T, client net.Conn) {
	t.Helper()
	refused := readRequest(512)
	refused[16] = 0x7f // the highest byte of the offset
	_, err := client.Write(append(readRequest(512), refused...))
	require.NoError(t, err)
	_, err = io.ReadFull(client, make([]byte, 16))
	require.NoError(t, err)
}

// hungDoors are command lines of servers of a disk that never answers, with files in DIR.
var hungDoors = map[string][]string{
	"serve": {"serve", "null-co://?latency-ns=3600000000000", "-k", "DIR/s", "--pid-file=pid", "--log-level=warn", "--log-format=text"},
	"daemon": {
		"daemon", "--blockdev", "null-co,node-name=disk0,latency-ns=3600000000000", "--nbd-server", "addr.type=unix,addr.path=DIR/s",
		"--export", "nbd,id=e,node-name=disk0,writable=on,name=", "--pidfile", "pid",
	},
}

// Goal: storage that never answers holds up the end for no longer than was said; the last word names what is abandoned, nobody is told that it was done, and
// neither socket nor pid file are left. Method: a read that hangs, and a client that has asked for nothing, so that only the flush at the end
// does; and a second signal, which waits for nothing. The limit leaves time for all that comes before what hangs.
func TestHungStorageHoldsUpNoEnd(t *testing.T) {
	for door, args := range hungDoors {
		for name, row := range map[string]struct {
			timeout string
			asks    bool
			signals int
			says    []string
		}{
			"read": {"3", true, 1, []string{
				"not stopped after 3s, while waiting for requests in flight", "abandoned: READ [0x0, +0x200) in node disk0 of client 1",
				"node disk0 is not flushed and closed",
			}},
			"flush":  {"3", false, 1, []string{"not stopped after 3s, while ", "flushing and closing "}},
			"second": {"3600", true, 2, []string{"second signal (interrupt): stopped without waiting"}},
		} {
			t.Run(door+"/"+name, func(t *testing.T) {
				t.Parallel()
				cmd, client, said := startHung(t, append(slices.Clone(args), "--stop-timeout="+row.timeout)...)
				if row.asks {
					askInVain(t, client)
				}
				socket := filepath.Join(cmd.Dir, "s")
				for n, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT}[:row.signals] {
					if n > 0 {
						require.Eventually(t, func() bool { _, err := os.Stat(socket); return err != nil }, commandMax, time.Millisecond, "it is stopping")
					}
					require.NoError(t, cmd.Process.Signal(sig))
				}
				reply, err := io.ReadAll(client)
				require.NoError(t, err)
				require.Empty(t, reply)
				require.Error(t, cmd.Wait())
				require.Equal(t, 1, cmd.ProcessState.ExitCode())
				for _, text := range row.says {
					require.Contains(t, said.String(), text)
				}
				require.NoFileExists(t, socket)
				require.NoFileExists(t, filepath.Join(cmd.Dir, "pid"))
			})
		}
	}
}
