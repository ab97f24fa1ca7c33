package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"nbd-dataplane/interop/subject"
)

// The test binary is the program as well: called as nbd-dataplane, qemu-nbd or qemu-storage-daemon it is that.
func TestMain(m *testing.M) {
	testscript.Main(allTests{m}, map[string]func(){programName: main, qemuName: main, qsdName: main, awaitName: await})
}

// allTests are run where the test binary is not the program, which has to have the environment that they give it.
type allTests struct{ m *testing.M }

// Run implements testscript.TestingM.
func (a allTests) Run() int {
	remove, err := subject.Environment()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	return a.m.Run()
}

var rewrite = flag.Bool("rewrite", false, "put what was printed into the scripts where it is compared")

// scriptsMax ends what hangs in a script, which then shows how far it has come; all of them take a minute or two with the race detector.
const scriptsMax = 12 * time.Minute

// Goal: the command line does what it says. Method: scripts that start the real program and clients of others.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(scriptsMax),
		UpdateScripts:       *rewrite,
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"stop":  stopServer,
			"stale": makeStale,
			"exits": exits,
			"json":  isJSON,
			"fake":  fakeServer,
		},
	})
}

// setupScript gives each script a directory with a name short enough for sockets, which goes when the script ends.
func setupScript(e *testscript.Env) error {
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		return err
	}
	e.Defer(func() { cleanUp(dir) })
	e.Setenv("S", dir)
	for _, name := range []string{"GORACE", "STATE_DIRECTORY"} { // a script has an environment of its own
		e.Setenv(name, os.Getenv(name))
	}
	e.Setenv("STOCK", stockQEMU)
	return nil
}

// cleanUp removes a directory, and ends what a test that failed has left running there: every server in the background
// has its pid file in its directory, and the directory in its command line.
func cleanUp(dir string) {
	pidFiles, _ := filepath.Glob(filepath.Join(dir, "pid*"))
	for _, f := range pidFiles {
		text, _ := os.ReadFile(f)
		line, _ := os.ReadFile("/proc/" + strings.TrimSpace(string(text)) + "/cmdline")
		if strings.Contains(string(line), dir+"/") {
			_ = terminate(f)
		}
	}
	os.RemoveAll(dir)
}

// stopServer is "stop PIDFILE": it terminates the process of a pid file and waits for its end.
func stopServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stop PIDFILE")
	}
	ts.Check(terminate(ts.MkAbs(args[0])))
}

func terminate(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return err
	}
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return err
		}
	}
}

// makeStale is "stale PATH": a socket that nobody listens at any more.
func makeStale(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stale PATH")
	}
	ts.Check(leaveSocket(args[0]))
}

func leaveSocket(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

// asProgram makes a link to the test binary that acts as the program of that name.
func asProgram(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	return link
}
