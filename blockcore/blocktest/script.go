package blocktest

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rewrite has the scripts take what is said as what was wanted.
var rewrite = flag.Bool("rewrite", false, "write the output of scripts into them instead of comparing")

// script is a file of scenarios.
type script struct {
	head      []string // lines before the first scenario
	scenarios []*scenario
}

// scenario is a graph of its own that things happen to. In the file:
//
//	=== T-D2 driver-cb/drain
//	# What it is about.
//	node backing
//	node top backing=backing
//	----
//
//	drain top as a
//	----
//	top: quiesce
//	a: quiet
//
// A block is some commands, a line of four dashes, and what they say, up to the next empty line.
type scenario struct {
	title  string
	blocks []*block
}

type block struct {
	commands []string // and comments
	want     []string
}

// RunScripts runs all scenarios of the files that match pattern, each with the commands of a new Stage. With the flag -rewrite what
// they say is written into the files, for the author to look at the difference.
func RunScripts(t *testing.T, pattern string) {
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		s := parseScript(string(text))
		require.NotEmpty(t, s.scenarios, file)
		for _, sc := range s.scenarios {
			id, _, _ := strings.Cut(sc.title, " ")
			t.Run(id, func(t *testing.T) { sc.run(t, newStage(t)) })
		}
		if *rewrite && !t.Failed() {
			require.NoError(t, os.WriteFile(file, []byte(s.String()), 0o644))
		}
	}
}

func (sc *scenario) run(t *testing.T, s *stage) {
	for _, b := range sc.blocks {
		var said []string
		for _, line := range b.commands {
			fields := strings.Fields(line)
			if len(fields) == 0 || fields[0] == "#" {
				continue
			}
			said = append(said, s.do(fields)...)
		}
		if *rewrite {
			b.want = said
			continue
		}
		require.Equal(t, strings.Join(b.want, "\n"), strings.Join(said, "\n"), "%s: after\n%s", sc.title, strings.Join(b.commands, "\n"))
	}
	s.strike()
}

func parseScript(text string) *script {
	s := &script{}
	var sc *scenario
	var b *block
	golden := false
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		title, begins := strings.CutPrefix(line, "=== ")
		switch {
		case begins:
			sc, b, golden = &scenario{title: title}, nil, false
			s.scenarios = append(s.scenarios, sc)
		case sc == nil:
			s.head = append(s.head, line)
		case line == "":
			b, golden = nil, false
		case line == "----":
			golden = true
		case golden:
			b.want = append(b.want, line)
		default:
			if b == nil {
				b = &block{}
				sc.blocks = append(sc.blocks, b)
			}
			b.commands = append(b.commands, line)
		}
	}
	return s
}

// String is the file.
func (s *script) String() string {
	lines := s.head
	for i, sc := range s.scenarios {
		if i > 0 {
			lines = append(lines, "")
		}
		lines = append(lines, "=== "+sc.title)
		for j, b := range sc.blocks {
			if j > 0 {
				lines = append(lines, "")
			}
			lines = append(lines, b.commands...)
			lines = append(lines, "----")
			lines = append(lines, b.want...)
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
