package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"

	"nbd-dataplane/qmp"
)

// Goal: sizes are read as people mean them, and what is no size is refused. Method: a table, from a disk of 1G.
func TestNewSize(t *testing.T) {
	const was = 1 << 30
	for text, want := range map[string]int64{
		"20G": 20 << 30, "0": 0, "+512M": was + 512<<20, "-1G": 0, "-1023M": 1 << 20, "0x1000": 4096, "1.5G": 3 << 29,
	} {
		n, err := newSize(was, text)
		require.NoError(t, err, text)
		require.Equal(t, want, n, text)
	}
	for _, text := range []string{"", "+", "-2G", "1Q", "--1", "+-1", "G", "99999999999G", "+9223372036854775807"} {
		_, err := newSize(was, text)
		require.Equal(t, statusUsage, statusOfError(err), text)
	}
}

// Goal: "-1G" is a size and no bundle of options, at its place only. Method: command lines.
func TestGuardSizes(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"ctl", "resize", "a", "-1G", "--shrink"}, []string{"ctl", "resize", "a", "--shrink", "--", "-1G"}},
		{[]string{"ctl", "--json", "resize", "a", "+1G"}, []string{"ctl", "--json", "resize", "a", "+1G"}},
		{[]string{"ctl", "resize", "a", "--", "-1G"}, []string{"ctl", "resize", "a", "--", "-1G"}},
		{[]string{"ctl", "drain", "a", "-1"}, []string{"ctl", "drain", "a", "-1"}},
		{[]string{"serve", "-p", "0", "resize"}, []string{"serve", "-p", "0", "resize"}},
		{nil, nil},
	} {
		require.Equal(t, c.want, guardSizes(c.args))
	}
}

// Goal: sizes and times are short, and a size that is not whole does not look so. Method: tables.
func TestTexts(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 1023: "1023", 1024: "1K", 1025: "1.0K", 1 << 20: "1M", 3 << 29: "1.5G", 1 << 63: "8E", 1<<40 + 1: "1.0T",
	} {
		require.Equal(t, want, sizeText(n))
	}
	for us, want := range map[int64]string{
		0: "0s", 999: "999us", 1500: "2ms", 1_200_000: "1.2s", 12_300_000: "12s", 75e6: "1m15s", 3_720e6: "1h02m", 90_000e6: "1d1h",
	} {
		require.Equal(t, want, ageText(microseconds(us)))
	}
}

// Goal: names that clients choose cannot speak to the terminal. Method: names with what terminals obey.
func TestPrintable(t *testing.T) {
	for name, want := range map[string]string{
		"disk": "disk", "two words": "two words", "": `""`, "a\x1b[2Jb": `"a\x1b[2Jb"`, "a\nb": `"a\nb"`, "\u202eb": `"\u202eb"`, `"`: `"\""`, "gr\u00fcn": "gr\u00fcn",
	} {
		require.Equal(t, want, printable(name))
	}
}

// exits is "exits STATUS PROGRAM ARG...": the program runs and ends with that status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	status := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		ended, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		status = ended.ExitCode()
	}
	if status != want {
		ts.Fatalf("status %d, want %d", status, want)
	}
}

// isJSON is "json": what the last program has printed is one JSON value.
func isJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: json")
	}
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
}

// fakeAnswer is what a fake monitor answers to a command.
type fakeAnswer struct {
	Return json.RawMessage `json:"return"`
	Error  string          `json:"error"`
	Detail any             `json:"detail"`
}

// fakeServer is "fake SOCKET FILE": a monitor that answers what stands in a file, until the script ends. So tables can be compared that
// tell of times, and errors come that take half a minute in a real server.
func fakeServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fake SOCKET FILE")
	}
	var answers map[string]fakeAnswer
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &answers))
	var commands []qmp.Command
	for name, answer := range answers {
		commands = append(commands, qmp.Command{Name: name, Handler: answer.handle})
	}
	server := qmp.New(qmp.Options{Version: qmp.VersionOf(7, 2, 22, "fake"), Commands: commands})
	listener, err := net.Listen("unix", args[0])
	ts.Check(err)
	go func() { _ = server.Serve(listener, qmp.Monitor{}) }()
	ts.Defer(server.Close)
}

func (a *fakeAnswer) handle(context.Context, *qmp.Call) (any, error) {
	switch {
	case a.Error == "":
		return a.Return, nil
	case a.Detail == nil:
		return nil, errors.New(a.Error)
	}
	return nil, &qmp.Detailed{Err: errors.New(a.Error), Detail: a.Detail}
}
