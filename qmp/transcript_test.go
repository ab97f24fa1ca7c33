package qmp

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write what is answered into the transcripts")

// Goal: what goes over the wire, byte for byte and in its order. Method: each file of testdata is a dialogue. "> text" is sent,
// with the escapes of a Go string if it is in quotes; "monitor NAME [pretty]" connects one and makes it the one that
// speaks; what each of them is answered stands indented below, and is compared. -rewrite writes it.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			var got string
			inBubble(t, func(t *testing.T, s *stage) { got = play(t, s, string(want)) })
			if *rewrite {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
				return
			}
			require.Equal(t, string(want), got)
		})
	}
}

// cast is the monitors of a transcript, in the order in which they came.
type cast struct {
	names    []string
	monitors map[string]*monitor
	speaking string
}

func play(t *testing.T, s *stage, script string) string {
	t.Helper()
	all := &cast{monitors: map[string]*monitor{}}
	var out strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line + "\n")
		all.act(t, s, line)
		out.WriteString(all.answers())
	}
	for _, m := range all.monitors {
		m.conn.Close()
	}
	return out.String()
}

func (c *cast) act(t *testing.T, s *stage, line string) {
	t.Helper()
	fields := strings.Fields(line)
	switch {
	case len(fields) == 0 || fields[0] == "#":
	case fields[0] == ">":
		c.monitors[c.speaking].say(unquoted(t, strings.TrimPrefix(line, "> ")))
	case fields[0] == "close":
		c.monitors[fields[1]].conn.Close()
	case fields[0] == "monitor":
		c.speaking = fields[1]
		if c.monitors[c.speaking] == nil {
			c.names = append(c.names, c.speaking)
			c.monitors[c.speaking] = s.connect(Monitor{Pretty: len(fields) > 2})
		}
	default:
		t.Fatalf("what is %q?", line)
	}
}

func unquoted(t *testing.T, text string) string {
	t.Helper()
	if !strings.HasPrefix(text, `"`) {
		return text + "\n"
	}
	s, err := strconv.Unquote(text)
	require.NoError(t, err, text)
	return s
}

// answers are those of all, indented; of who does not speak with the name before.
func (c *cast) answers() string {
	var out strings.Builder
	for _, name := range c.names {
		for line := range strings.Lines(c.monitors[name].took()) {
			line, crlf := strings.CutSuffix(line, "\r\n")
			if !crlf {
				line += " (no CR LF)"
			}
			if name != c.speaking {
				line = name + ": " + line
			}
			out.WriteString("    " + line + "\n")
		}
	}
	return out.String()
}
