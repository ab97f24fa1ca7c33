package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// raw sends text to the monitor as it is and returns as many answers, without events.
func (s *steered) raw(text string, answers int) []string {
	s.t.Helper()
	require.NoError(s.t, s.conn.SetDeadline(time.Now().Add(commandMax)))
	_, err := s.conn.Write([]byte(text))
	require.NoError(s.t, err)
	var lines []string
	for len(lines) < answers {
		line, err := s.lines.ReadString('\n')
		require.NoError(s.t, err, "after %q", lines)
		if !strings.Contains(line, `"event"`) {
			lines = append(lines, s.plain(strings.TrimSpace(line)))
		}
	}
	return lines
}

// Goal: every id comes back as it was sent, and every answer is JSON. Method: numbers that no double holds, alone and inside of others, in
// commands that succeed and that fail. QEMU makes doubles of them and answers with inf, which is no JSON; it is asked too, so that this is
// noticed when it changes.
func TestNumbersInIDs(t *testing.T) {
	ours, stock := steer(t, asProgram(t, qsdName)), steer(t, stockQSD)
	for _, id := range []string{"1e400", "-1e400", "1e-400", "123456789012345678901234567890", "1.50", "-0.0", `[1e400,{"a":-1e999}]`} {
		for _, command := range []string{"query-version", "nosuch"} {
			text := fmt.Sprintf("{\"execute\":%q,\"id\":%s}\n", command, id)
			answer := ours.raw(text, 1)[0]
			require.True(t, json.Valid([]byte(answer)), answer)
			require.Contains(t, strings.ReplaceAll(answer, " ", ""), `"id":`+id)
			answer = stock.raw(text, 1)[0]
			require.Equal(t, strings.Contains(answer, "inf"), !json.Valid([]byte(answer)), answer)
		}
	}
}

// Goal: an export that is going says so to whoever removes it again. Method: a read of a client, on a disk that takes a second, holds it; three
// removals are sent at once.
func TestExportIsRemovedTwice(t *testing.T) {
	var want []string
	for _, program := range []string{stockQSD, asProgram(t, qsdName)} {
		s := steer(t, program)
		s.ok(
			`blockdev-add {"driver":"null-co","node-name":"n","size":1048576,"latency-ns":1000000000}`,
			`nbd-server-start {"addr":{"type":"unix","data":{"path":"DIR/s"}}}`,
			`block-export-add {"type":"nbd","id":"e","node-name":"n","name":"e"}`)
		client := exec.CommandContext(t.Context(), "qemu-io", "-r", "-f", "raw", "nbd+unix:///e?socket="+s.dir+"/s")
		in, err := client.StdinPipe()
		require.NoError(t, err)
		out, err := client.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, subject.Start(client))
		said := bufio.NewReader(out)
		for _, command := range []string{"aio_read 0 4k\n", "map\n"} { // one after the other: it does not look whether it has read two
			_, err = said.ReadString('>')
			require.NoError(t, err)
			_, err = in.Write([]byte(command))
			require.NoError(t, err)
		}
		_, err = said.ReadString('M') // the map, of 1 MiB: the server has taken it, and so the read before
		require.NoError(t, err)
		again := `{"execute":"block-export-del","arguments":{"id":"e","mode":"hard"}}`
		answers := s.raw(again+"\n"+again+"\n"+`{"execute":"block-export-del","arguments":{"id":"e"}}`+"\n", 3)
		require.NoError(t, in.Close())
		_ = client.Wait()
		if want == nil {
			want = answers
			require.Contains(t, want[1], "Export 'e' is already shutting down")
		}
		require.Equal(t, want, answers)
	}
}
