package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/nbd"
)

// writer is a client that writes and need not be answered.
type writer struct {
	t    *testing.T
	conn net.Conn
}

func newWriter(t *testing.T, socket, export string) *writer {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	client, err := nbd.NewClient(conn)
	require.NoError(t, err)
	_, err = client.Go(export)
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(commandMax)))
	return &writer{t, conn}
}

const writeBytes = 512

// write asks for bytes of one value to be written. NBD proto.md, "Request message".
func (w *writer) write(offset uint64, value byte) {
	w.t.Helper()
	request := []byte{0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1}
	request = binary.BigEndian.AppendUint64(request, offset)
	request = binary.BigEndian.AppendUint64(request, offset)
	request = binary.BigEndian.AppendUint32(request, writeBytes)
	_, err := w.conn.Write(append(request, bytes.Repeat([]byte{value}, writeBytes)...))
	require.NoError(w.t, err)
}

// cut holds that the connection ends without a reply.
func (w *writer) cut(why string) {
	w.t.Helper()
	got, err := io.ReadAll(w.conn)
	require.NoError(w.t, err, why)
	require.Empty(w.t, got, why)
}

// clientsNow is what x-query-clients lists.
func (s *steered) clientsNow() (all []struct {
	ID       uint64
	InFlight int `json:"in-flight"`
	Held     bool
	Leaving  bool
}) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal([]byte(s.do("x-query-clients")), &all))
	return all
}

// eventually waits for what is asked for again and again.
func (s *steered) eventually(what string, is func() bool) {
	s.t.Helper()
	require.Eventually(s.t, is, commandMax, 5*time.Millisecond, what)
}

// content is what the disk has in a place that was written, or not.
func (s *steered) content(offset int64) byte {
	s.t.Helper()
	f, err := os.Open(filepath.Join(s.dir, "d.img"))
	require.NoError(s.t, err)
	defer f.Close()
	b := make([]byte, writeBytes)
	_, err = f.ReadAt(b, offset)
	require.NoError(s.t, err)
	require.Equal(s.t, bytes.Repeat(b[:1], writeBytes), b)
	return b[0]
}

// serveSteered is "serve" on the export e of d.img with a monitor.
func serveSteered(t *testing.T, args ...string) (*steered, string) {
	t.Helper()
	own := startOwnNamed(t, "e", append([]string{"--control=m", "e=d.img"}, args...)...)
	s := &steered{t: t, cmd: own.cmd, dir: own.cmd.Dir}
	s.conn, s.lines = s.connect()
	return s, own.socket
}

// Goal: a client that is thrown out, or whose export is removed by force, sees the end at once, whatever its requests wait for; it is listed as leaving as
// long as the disk has them; what the disk has is finished and what a drain has held back is not executed; afterwards all counts are zero. Method: with
// both engines, a disk on which a write is held, and a drain that waits for it while another write is held back.
func TestCutOffAtOnce(t *testing.T) {
	ours := asProgram(t, programName)
	for _, engine := range []string{"io_uring", "threads"} {
		for _, words := range []string{"disconnect", "export del"} {
			name := engine + ", " + words
			s, socket := serveSteered(t, "--aio="+engine)
			ctl := []string{"ctl", "--control", filepath.Join(s.dir, "m")}
			s.ok(`blockdev-add {"driver":"inject","node-name":"i","file":"disk0","rules":[{"ops":["write"],"offset":0,"length":512,"hold":true}]}`,
				`x-blockdev-insert {"node-name":"i","above":"disk0"}`)
			w := newWriter(t, socket, "e")
			w.write(0, 0x55)
			s.eventually("in flight", func() bool { all := s.clientsNow(); return len(all) == 1 && all[0].InFlight == 1 })
			drain := &steered{t: t, cmd: s.cmd, dir: s.dir}
			drain.conn, drain.lines = drain.connect()
			drained := make(chan string, 1)
			go func() { drained <- drain.do(`x-drain-begin {"exports":["e"],"lease":600,"flush":false}`) }()
			s.eventually("quiesced", func() bool {
				out, err := s.tool(ours, append(ctl, "--json", "export", "list")...)
				return err == nil && !regexp.MustCompile(`"x-quiesced": *0`).MatchString(out)
			})
			w.write(4096, 0x66)
			s.eventually("held", func() bool { return s.clientsNow()[0].Held })

			deleted := make(chan error, 1)
			if words == "disconnect" {
				out, err := s.tool(ours, append(ctl, "disconnect", "1")...)
				require.NoError(t, err, out)
			} else {
				go func() {
					_, err := s.tool(ours, append(ctl, "export", "del", "e", "--hard")...)
					deleted <- err
				}()
			}
			w.cut(name)
			s.eventually("leaving", func() bool { c := s.clientsNow()[0]; return c.Leaving && c.InFlight == 1 && !c.Held })
			out, err := s.tool(ours, append(ctl, "clients")...)
			require.NoError(t, err)
			require.Contains(t, out, "is leaving")
			require.Contains(t, s.do("x-query-inflight"), `"node":"i"`)

			s.ok(`blockdev-reopen {"options":[{"driver":"inject","node-name":"i","file":"disk0"}]}`)
			if words == "disconnect" {
				require.Contains(t, <-drained, "drain", name)
				s.ok(`x-drain-end {"id":"drain1"}`)
			} else {
				require.NoError(t, <-deleted)
				<-drained
			}
			s.eventually("gone", func() bool { return len(s.clientsNow()) == 0 })
			require.Equal(t, "[]", s.do("x-query-inflight"))
			require.Equal(t, byte(0x55), s.content(0), name)
			require.Zero(t, s.content(4096), name)
			require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
			require.NoError(t, s.cmd.Wait(), name)
		}
	}
}

// Goal: a server that stops executes nothing that a section has held back: clients see the end without a reply and repeat it elsewhere. Method: a write under a
// lease, with both doors and engines, and all ways to stop; the disk has not changed, and the monitor that holds the lease hears of its end.
func TestStopExecutesNothingThatWasHeld(t *testing.T) {
	for _, how := range []string{"serve io_uring", "serve threads", "serve quit", "daemon", "daemon quit"} {
		var s *steered
		socket := ""
		if strings.HasPrefix(how, "serve") {
			engine := "io_uring"
			if how == "serve threads" {
				engine = "threads"
			}
			s, socket = serveSteered(t, "--aio="+engine)
		} else {
			s = steer(t, asProgram(t, qsdName), "--blockdev", "file,node-name=f,filename=DIR/d.img",
				"--nbd-server", "addr.type=unix,addr.path=DIR/s", "--export", "nbd,id=e,node-name=f,name=e,writable=on")
			socket = filepath.Join(s.dir, "s")
		}
		w := newWriter(t, socket, "e")
		require.Contains(t, s.do(`x-drain-begin {"exports":["e"],"lease":600}`), "drain")
		w.write(0, 0x77)
		s.eventually("held", func() bool { all := s.clientsNow(); return len(all) == 1 && all[0].Held })
		if strings.HasSuffix(how, "quit") {
			s.ok("quit")
		} else {
			require.NoError(t, s.cmd.Process.Signal(syscall.SIGTERM))
		}
		w.cut(how)
		events := ""
		for {
			m, err := s.next()
			if err != nil {
				require.ErrorIs(t, err, io.EOF, how)
				break
			}
			events += m.Event + " "
		}
		require.Contains(t, events, "X_DRAIN_ENDED", how)
		require.NoError(t, s.cmd.Wait(), how)
		require.Zero(t, s.content(0), how)
	}
}

// Goal: monitors are closed last of all, and whatever they ask meanwhile is answered: QEMU's clients look at their connection once more. Method: two monitors;
// one says quit, twice, and then asks; both hear of the end of the export before their own.
func TestMonitorsAreClosedLast(t *testing.T) {
	s := steer(t, asProgram(t, qsdName), "--blockdev", "null-co,node-name=n", "--nbd-server", "addr.type=unix,addr.path=DIR/s", "--export", "nbd,id=e,node-name=n")
	other := &steered{t: t, cmd: s.cmd, dir: s.dir}
	other.conn, other.lines = other.connect()
	_, err := s.conn.Write([]byte(`{"execute":"quit"}{"execute":"quit"}`))
	require.NoError(t, err)
	for _, m := range []*steered{s, other} {
		text, err := io.ReadAll(m.lines)
		require.NoError(t, err)
		require.Contains(t, string(text), "BLOCK_EXPORT_DELETED")
		if m == s {
			require.True(t, strings.HasPrefix(string(text), "{\"return\": {}}\r\n"), string(text))
		}
	}
	require.Equal(t, ended, s.wait())
}
