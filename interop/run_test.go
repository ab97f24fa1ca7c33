package interop_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/interop/subject"
)

// Goal: what make run prints is true: the URI can be attached as printed, and Ctrl-C ends it cleanly and leaves the disk
// behind. Method: the script runs in a directory of the test's; each printed line that a test can run is run.
func TestRunScript(t *testing.T) {
	if program.Stock() {
		return // the script uses --create, which qemu-nbd does not have
	}
	root, err := subject.Root()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "run")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	script := startScript(t, filepath.Join(root, "scripts", "run"), program.Path(), dir)
	socket := filepath.Join(dir, "nbd.sock")
	require.Eventually(t, func() bool { // it is there before somebody listens
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, clientMax, 5*time.Millisecond)

	nbdinfo := regexp.MustCompile(`nbdinfo '([^']+)'`).FindStringSubmatch(script.text())
	require.NotNil(t, nbdinfo, script.text())
	require.EqualValues(t, 1<<30, nbdinfoJSON(t, nbdinfo[1]).Exports[0].Size)
	drive := regexp.MustCompile(`file=(nbd:unix:[^,]+),`).FindStringSubmatch(script.text())
	require.NotNil(t, drive, script.text())
	qemuIO(t, drive[1], "write -P 9 0 4k", "read -P 9 0 4k")
	require.Contains(t, script.text(), "nbd-client -unix '"+socket+"' /dev/nbd0")

	require.NoError(t, script.cmd.Process.Signal(syscall.SIGINT))
	require.NoError(t, script.cmd.Wait(), script.text())
	require.NoFileExists(t, socket)
	require.FileExists(t, filepath.Join(dir, "example.img"))
}

// scriptRun is a script that is running; its output goes into a file that can be read meanwhile.
type scriptRun struct {
	cmd  *exec.Cmd
	path string
}

func startScript(t *testing.T, path string, args ...string) scriptRun {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	require.NoError(t, err)
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, subject.Start(cmd))
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return scriptRun{cmd: cmd, path: out.Name()}
}

func (s scriptRun) text() string {
	text, _ := os.ReadFile(s.path)
	return string(text)
}

// Goal: a bad command line costs the user one line to read. Method: mistakes that everybody makes once; the program
// exits with status 1, names the thing in one line, and leaves no socket behind.
func TestMistakesAreOneLine(t *testing.T) {
	if program.Stock() {
		return // qemu-nbd's own words are compared in the tests of the command line
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "sock")
	image := sparse(t, mib)
	for _, mistake := range []struct {
		name string
		args []string
		says string
	}{
		{"a missing file", []string{"-k", socket, filepath.Join(dir, "nothing.img")}, "nothing.img"},
		{"a directory", []string{"-k", socket, dir}, dir},
		{"an unknown cache mode", []string{"-k", socket, "--cache=sometimes", image}, "sometimes"},
		{"an unknown option", []string{"-k", socket, "--colour", image}, "--colour"},
		{"a relative socket path", []string{"-k", "sock", image}, "sock"},
		{"no file at all", []string{"-k", socket}, "file"},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			line := program.Command(append([]string{"-f", "raw"}, mistake.args...)...)
			got := client(t, line[0], line[1:]...)
			got.fails(t, mistake.says)
			require.Equal(t, 1, exitStatus(got.err), got.stderr)
			require.Empty(t, got.stdout)
			require.Equal(t, 1, countLines(got.stderr), got.stderr)
			require.NoFileExists(t, socket)
		})
	}
}

func countLines(text string) int { return strings.Count(strings.TrimSpace(text), "\n") + 1 }

func exitStatus(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return -1
}
