package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbd-dataplane/interop/subject"
)

const (
	clientMax = 2 * time.Minute // a client that hangs ends here, and its test fails with what it said
	mib       = 1 << 20
)

// program is what all tests of the package start. Set once by TestMain.
var program subject.Program

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	remove, err := subject.Environment()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	dir, err := os.MkdirTemp("", "interop")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if program, err = subject.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// storage is one way for the server to reach its file. The ones below are what a client must not be able to tell apart.
type storage struct {
	name string
	args []string
}

var storages = []storage{
	{"io_uring, page cache", []string{"--aio=io_uring", "--cache=writeback"}},
	{"threads, page cache", []string{"--aio=threads", "--cache=writeback"}},
	{"io_uring, O_DIRECT", []string{"--aio=io_uring", "--cache=none"}},
	{"threads, O_DIRECT", []string{"--aio=threads", "--cache=none"}},
}

// onEachStorage runs a test once for each storage, with the options that choose it.
func onEachStorage(t *testing.T, run func(t *testing.T, args []string)) {
	for _, s := range storages {
		t.Run(s.name, func(t *testing.T) { run(t, s.args) })
	}
}

// serveRaw starts a server for a file; args are added to what all raw exports here have.
func serveRaw(t *testing.T, file string, args ...string) *subject.Server {
	t.Helper()
	return program.Start(t, subject.Options{File: file, Args: append([]string{"-f", "raw", "--discard=unmap"}, args...)})
}

// sparse is a file of the given size without a byte in it.
func sparse(t *testing.T, bytes int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sparse.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, bytes); err != nil {
		t.Fatal(err)
	}
	return path
}

// patterned is a file whose every 8 bytes hold their own offset, so that data in a wrong place is seen.
func patterned(t *testing.T, size int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "patterned.img")
	if err := os.WriteFile(path, pattern(size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pattern(size int) []byte {
	var out bytes.Buffer
	out.Grow(size + 8)
	for n := 0; out.Len() < size; n += 8 {
		fmt.Fprintf(&out, "%08x", n)
	}
	return out.Bytes()[:size]
}

// result is what a client did.
type result struct {
	line, stdout, stderr string
	err                  error
}

// client runs one of Debian's programs and returns when it has ended.
func client(t *testing.T, name string, args ...string) result {
	t.Helper()
	return clientInput(t, "", name, args...)
}

// clientInput runs a program with text on its standard input. Debian's directories are first on its path, because what
// else is on it (another Python, say) does not have Debian's libraries, and its working directory is an empty one.
func clientInput(t *testing.T, input, name string, args ...string) result {
	t.Helper()
	path, err := debianPath(name)
	if err != nil {
		return result{line: name, err: fmt.Errorf("%w: run scripts/install-deps", err)}
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientMax)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+debianDirs+":"+os.Getenv("PATH"), "LC_ALL=C.UTF-8")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	err = cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("%w (%v)", err, ctx.Err())
	}
	return result{line: strings.Join(cmd.Args, " "), stdout: stdout.String(), stderr: stderr.String(), err: err}
}

const debianDirs = "/usr/sbin:/usr/bin:/sbin:/bin"

func debianPath(name string) (string, error) {
	if filepath.IsAbs(name) {
		return name, nil
	}
	for _, dir := range filepath.SplitList(debianDirs) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// ok fails the test if the client did not succeed, with everything it said, and returns its standard output.
func (r result) ok(t *testing.T) string {
	t.Helper()
	if r.err != nil {
		t.Fatalf("%s: %v\nstdout:\n%s\nstderr:\n%s", r.line, r.err, ending(r.stdout), ending(r.stderr))
	}
	return r.stdout
}

// ending is the part of a long output that says how it ended.
func ending(text string) string {
	const keep = 4000
	if len(text) <= keep {
		return text
	}
	return "...\n" + text[len(text)-keep:]
}

// fails fails the test if the client succeeded, or if it did not say why in these words.
func (r result) fails(t *testing.T, words string) {
	t.Helper()
	if r.err == nil {
		t.Fatalf("%s: succeeded\nstdout:\n%s\nstderr:\n%s", r.line, r.stdout, r.stderr)
	}
	if !strings.Contains(r.stdout+r.stderr, words) {
		t.Fatalf("%s: said nothing of %q\nstdout:\n%s\nstderr:\n%s", r.line, words, r.stdout, r.stderr)
	}
}
