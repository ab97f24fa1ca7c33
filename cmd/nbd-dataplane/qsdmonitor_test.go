package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
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
)

// stockQSD is the program whose monitor we stand in for.
const stockQSD = "/usr/bin/qemu-storage-daemon"

// steered is a storage daemon, ours or QEMU's, and a monitor of it.
type steered struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	conn   net.Conn
	lines  *bufio.Reader
	stderr *os.File
	events []string // that nobody has awaited
}

// steer starts a storage daemon in a directory of its own and negotiates with its monitor.
func steer(t *testing.T, program string, args ...string) *steered {
	t.Helper()
	s := launch(t, program, args...)
	s.conn, s.lines = s.connect()
	return s
}

// ended is what is left of a daemon that was started by launch and ended well.
var ended = outcome{Stderr: "qemu-storage-daemon: --chardev socket,id=m,path=DIR/m,server=on,wait=on: info: QEMU waiting for connection on: disconnected:unix:DIR/m,server=on\n"}

// launch starts a storage daemon that has the monitor DIR/m, and goes on when somebody has dialled it: QEMU greets one twice who comes while it
// is still putting its monitor up.
func launch(t *testing.T, program string, args ...string) *steered {
	t.Helper()
	s := &steered{t: t, dir: sameDir(t)}
	args = append([]string{"--chardev", "socket,id=m,path=DIR/m,server=on,wait=on", "--monitor", "m"}, args...)
	for n := range args {
		args[n] = strings.ReplaceAll(args[n], "DIR", s.dir)
	}
	s.cmd = exec.CommandContext(t.Context(), program, args...)
	s.stderr = scratch(t)
	s.cmd.Dir, s.cmd.Stderr = s.dir, s.stderr
	require.NoError(t, subject.Start(s.cmd))
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.cmd.Process.Kill()
			s.cmd.Wait()
		}
	})
	return s
}

// dial connects to a socket in the daemon's directory.
func (s *steered) dial(name string) (net.Conn, *bufio.Reader) {
	s.t.Helper()
	var conn net.Conn
	require.Eventually(s.t, func() (ok bool) {
		var err error
		conn, err = net.Dial("unix", filepath.Join(s.dir, name))
		return err == nil
	}, commandMax, 5*time.Millisecond)
	s.t.Cleanup(func() { conn.Close() })
	require.NoError(s.t, conn.SetDeadline(time.Now().Add(commandMax)))
	return conn, bufio.NewReader(conn)
}

// connect opens another monitor.
func (s *steered) connect() (net.Conn, *bufio.Reader) {
	s.t.Helper()
	conn, lines := s.dial("m")
	_, err := lines.ReadString('\n')
	require.NoError(s.t, err)
	_, err = conn.Write([]byte(`{"execute":"qmp_capabilities"}`))
	require.NoError(s.t, err)
	_, err = lines.ReadString('\n')
	require.NoError(s.t, err)
	return conn, lines
}

// said is one line from a monitor.
type said struct {
	Return any
	Error  *struct{ Class, Desc string }
	Event  string
	Data   any
}

// next reads a line.
func (s *steered) next() (said, error) {
	line, err := s.lines.ReadString('\n')
	if err != nil {
		return said{}, err
	}
	var m said
	require.NoError(s.t, json.Unmarshal([]byte(line), &m), line)
	return m, nil
}

// do executes one line of a script, "COMMAND" or "COMMAND ARGUMENTS" or "await EVENT COUNT", and returns what comes of it.
func (s *steered) do(line string) string {
	s.t.Helper()
	name, arguments, _ := strings.Cut(strings.ReplaceAll(line, "DIR", s.dir), " ")
	if name == "await" {
		return s.await(arguments)
	}
	message := fmt.Sprintf(`{"execute":%q}`, name)
	if arguments != "" {
		message = fmt.Sprintf(`{"execute":%q,"arguments":%s}`, name, arguments)
	}
	require.NoError(s.t, s.conn.SetDeadline(time.Now().Add(commandMax)))
	if _, err := s.conn.Write([]byte(message + "\n")); err != nil {
		return "monitor: gone"
	}
	for {
		m, err := s.next()
		if err != nil {
			return "monitor: gone"
		}
		switch {
		case m.Event != "":
			s.note(m)
		case m.Error != nil:
			return s.plain(m.Error.Class + ": " + m.Error.Desc)
		default:
			text, err := json.Marshal(stockPart(m.Return))
			if name == "x-debug-query-block-graph" {
				return shapeOf(m.Return)
			}
			require.NoError(s.t, err)
			return s.plain(string(text))
		}
	}
}

// note keeps an event that QEMU knows.
func (s *steered) note(m said) {
	if strings.HasPrefix(m.Event, "X_") {
		return
	}
	text, err := json.Marshal(m.Data)
	require.NoError(s.t, err)
	s.events = append(s.events, s.plain(m.Event+" "+string(text)))
}

// await returns the next events, sorted, as many as are said. They have to be of that name.
func (s *steered) await(what string) string {
	s.t.Helper()
	name, count := what, 1
	_, _ = fmt.Sscanf(what, "%s %d", &name, &count)
	for len(s.events) < count {
		m, err := s.next()
		require.NoError(s.t, err, "waiting for %s", what)
		s.note(m)
	}
	those := slices.Sorted(slices.Values(s.events[:count]))
	s.events = s.events[count:]
	for _, e := range those {
		require.Equal(s.t, name, strings.Fields(e)[0])
	}
	return strings.Join(those, "; ")
}

// heard waits for an event of that name, whatever comes before it, and forgets them.
func (s *steered) heard(name string) {
	s.t.Helper()
	for !slices.ContainsFunc(s.events, func(e string) bool { return strings.HasPrefix(e, name+" ") }) {
		m, err := s.next()
		require.NoError(s.t, err, "waiting for %s", name)
		s.note(m)
	}
	s.events = nil
}

func (s *steered) plain(text string) string { return strings.ReplaceAll(text, s.dir, "DIR") }

// notCompared are members of results in which we differ: what a file takes on its disk is not told, a null disk has no file name, and
// every image says that it is not dirty.
var notCompared = []string{"actual-size", "dirty-flag"}

// nodeNameOf is what lists are sorted by: QEMU lists its nodes by age, we by name.
func nodeNameOf(v any) string {
	object, _ := v.(map[string]any)
	name, _ := object["node-name"].(string)
	return name
}

// stockPart is a result without what we tell besides and what is not compared.
func stockPart(v any) any {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "json:{\"driver\": \"null-co\"") {
			return "null-co://"
		}
	case map[string]any:
		for key := range v {
			if strings.HasPrefix(key, "x-") || slices.Contains(notCompared, key) {
				delete(v, key)
				continue
			}
			v[key] = stockPart(v[key])
		}
	case []any:
		for n := range v {
			v[n] = stockPart(v[n])
		}
		slices.SortStableFunc(v, func(a, b any) int { return strings.Compare(nodeNameOf(a), nodeNameOf(b)) })
	}
	return v
}

// shapeOf is a graph in words that depend neither on the order of its nodes nor on their numbers. Nodes that exports use may be resized
// here and not in QEMU; that is left out, and so are the names of exports.
func shapeOf(graph any) string {
	var g struct {
		Nodes []struct {
			ID         int
			Type, Name string
		}
		Edges []struct {
			Parent, Child int
			Name          string
			Perm          []string
			Shared        []string `json:"shared-perm"`
		}
	}
	text, err := json.Marshal(graph)
	if err == nil {
		err = json.Unmarshal(text, &g)
	}
	if err != nil {
		return err.Error()
	}
	names := map[int]string{}
	var lines []string
	for _, n := range g.Nodes {
		names[n.ID] = n.Type
		if n.Type == "block-driver" && !strings.HasPrefix(n.Name, "#block") {
			names[n.ID] += " " + n.Name
		}
		lines = append(lines, names[n.ID])
	}
	for _, e := range g.Edges {
		shared := slices.DeleteFunc(e.Shared, func(s string) bool { return s == "resize" })
		slices.Sort(shared)
		slices.Sort(e.Perm)
		lines = append(lines, fmt.Sprintf("%s -> %s as %s %v sharing %v", names[e.Parent], names[e.Child], e.Name, e.Perm, shared))
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

// end stops the daemon and returns how it ended: its status, what it has said, what it has left.
func (s *steered) end(signal syscall.Signal) outcome {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Error("the daemon has gone by itself")
	}
	return s.wait()
}

func (s *steered) wait() outcome {
	s.t.Helper()
	if s.cmd.Path == stockQSD { // which loses a signal now and then; ours would take the second one for impatience
		again := time.AfterFunc(time.Second, func() { s.cmd.Process.Signal(syscall.SIGTERM) })
		defer again.Stop()
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return outcome{Status: s.cmd.ProcessState.ExitCode(), Stderr: s.plain(contents(s.t, s.stderr))}
}

// transcript is what a script leads to.
func transcript(t *testing.T, program string, args []string, script string) string {
	t.Helper()
	s := steer(t, program, args...)
	var b strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if line != "" {
			fmt.Fprintf(&b, "%s\n\t%s\n", line, s.do(line))
		}
	}
	fmt.Fprintf(&b, "%+v\n", s.end(syscall.SIGTERM))
	return b.String()
}
