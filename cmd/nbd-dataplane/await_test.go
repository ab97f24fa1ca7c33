package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	awaitName = "await"
	awaitEach = 5 * time.Millisecond // between the end of a command and its next run
)

// awaited waits for lines of what a command prints.
type awaited struct {
	pattern *regexp.Regexp
	count   int // so many of them
	command []string
	max     time.Duration
}

// await is a program for scripts, "await [-n COUNT] PATTERN COMMAND...": it runs a command again and again until COUNT lines of what it prints, to either output, match,
// and prints those. When that takes too long it fails and says what the command has printed last: whoever waits in a loop of the shell for words that have changed waits for ever.
func await() {
	n := flag.Int("n", 1, "how many lines have to match")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: await [-n COUNT] PATTERN COMMAND...")
		os.Exit(2)
	}
	lines, err := awaited{regexp.MustCompile(flag.Arg(0)), *n, flag.Args()[1:], commandMax}.lines()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(strings.Join(lines, "\n"))
}

func (a awaited) lines() ([]string, error) {
	limit := time.After(a.max)
	for {
		cmd := exec.Command(a.command[0], a.command[1:]...)
		said, err := cmd.CombinedOutput()
		if lines := a.in(said); len(lines) >= a.count {
			return lines, nil
		}
		select {
		case <-limit:
			return nil, fmt.Errorf("await: %d lines like '%s' have not come in %v; %s said last (%v):\n%s", a.count, a.pattern, a.max, strings.Join(a.command, " "), err, said)
		case <-time.After(awaitEach):
		}
	}
}

// in are the lines that match.
func (a awaited) in(said []byte) (lines []string) {
	for line := range bytes.Lines(said) {
		if line = bytes.TrimSuffix(line, []byte("\n")); a.pattern.Match(line) {
			lines = append(lines, string(line))
		}
	}
	return lines
}

// Goal: a wait of a script ends with what has come, or with what was waited for and what came instead. Method: a file that gets one line each time it is looked at.
func TestAwait(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	look := []string{"sh", "-c", `echo more >>` + file + `; cat ` + file + `; echo other >&2; exit 3`}
	lines, err := awaited{regexp.MustCompile("^more|^other"), 4, look, commandMax}.lines()
	require.NoError(t, err)
	require.Equal(t, []string{"more", "more", "more", "other"}, lines)
	_, err = awaited{regexp.MustCompile("^nothing$"), 1, look, time.Millisecond}.lines()
	require.ErrorContains(t, err, "1 lines like '^nothing$' have not come in 1ms; sh -c ")
	require.ErrorContains(t, err, "said last (exit status 3):\nmore\nmore\n")
	_, err = awaited{regexp.MustCompile("."), 1, []string{"/nowhere/program"}, time.Millisecond}.lines()
	require.ErrorContains(t, err, "no such file or directory")
}
