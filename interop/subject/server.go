package subject

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Limits of patience. Passing one is a failure of the test, so they are far above what a busy machine needs.
const (
	startMax = 2 * time.Minute
	stopMax  = 2 * time.Minute
	lookEach = 5 * time.Millisecond // how often a condition outside this process is looked at
)

// Server is one running process that serves NBD.
type Server struct {
	// Immutable.
	Socket string // unix socket, or empty
	Port   int    // TCP port on 127.0.0.1, or 0
	Name   string // export name
	cmd    *exec.Cmd
	exited chan struct{} // closed by run
	log    *output

	// Guarded by mu.
	mu      sync.Mutex
	err     error // of the process, once exited is closed
	stopped bool
}

// Options says how a server is started.
type Options struct {
	File   string   // what is served
	Name   string   // export name (-x)
	Socket string   // unix socket; empty chooses one in the test's directory
	Port   int      // TCP port instead of a unix socket
	TCP    bool     // a free TCP port instead of a unix socket
	Args   []string // everything else, before File
}

// Start runs the program and returns when it listens. The test's end stops it and fails if it did not stop cleanly.
func (p Program) Start(t testing.TB, o Options) *Server {
	t.Helper()
	pidFile := filepath.Join(shortDir(t), "pid")
	s := &Server{Name: o.Name, exited: make(chan struct{}), log: &output{}}
	args := []string{"--pid-file", pidFile}
	args = append(args, s.listenArgs(t, o)...)
	if o.Name != "" {
		args = append(args, "-x", o.Name)
	}
	args = append(append(args, o.Args...), o.File)
	line := p.Command(args...)
	s.cmd = exec.Command(line[0], line[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := Start(s.cmd); err != nil {
		t.Fatalf("starting %v: %v", line, err)
	}
	go s.run()
	t.Cleanup(func() { s.end(t) })
	s.awaitListening(t, pidFile)
	return s
}

// The pid file is written once the program listens: qemu-nbd's rule and ours.
func (s *Server) awaitListening(t testing.TB, pidFile string) {
	t.Helper()
	listens := func() bool {
		text, err := os.ReadFile(pidFile)
		return err == nil && len(bytes.TrimSpace(text)) > 0
	}
	if !s.until(startMax, listens) {
		t.Fatalf("the server did not start: %v\n%v\n%s", s.cmd.Args, s.exitError(), s.log)
	}
}

// until looks at a condition until it holds, the server exits, or patience ends.
func (s *Server) until(patience time.Duration, holds func() bool) bool {
	deadline := time.After(patience)
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-s.exited:
			return holds()
		case <-deadline:
			return false
		}
	}
	return true
}

func (s *Server) listenArgs(t testing.TB, o Options) []string {
	t.Helper()
	if !o.TCP && o.Port == 0 {
		s.Socket = o.Socket
		if s.Socket == "" {
			s.Socket = filepath.Join(shortDir(t), "sock")
		}
		return []string{"-k", s.Socket}
	}
	s.Port = o.Port
	if s.Port == 0 {
		s.Port = FreePort(t)
	}
	return []string{"-b", "127.0.0.1", "-p", strconv.Itoa(s.Port)}
}

// run is the goroutine that reaps the process.
func (s *Server) run() {
	err := s.cmd.Wait()
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	close(s.exited)
}

func (s *Server) exitError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// URI is where clients find the export.
func (s *Server) URI() string {
	if s.Socket != "" {
		return "nbd+unix:///" + s.Name + "?socket=" + s.Socket
	}
	return fmt.Sprintf("nbd://127.0.0.1:%d/%s", s.Port, s.Name)
}

// AwaitLog waits until the server has printed a text. What it has written is read by a goroutine here, which may be later than what the server does next.
func (s *Server) AwaitLog(t testing.TB, text string) {
	t.Helper()
	if !s.until(startMax, func() bool { return strings.Contains(s.log.String(), text) }) {
		t.Fatalf("the server did not say %q; it said:\n%s", text, s.log)
	}
}

// Pid is the server's process id.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Stop asks the server to stop and returns when it has; anything but exit status 0 fails the test.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if !s.markStopped() {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopMax):
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks
		<-s.exited
		t.Errorf("the server did not stop within %v of SIGTERM\n%s", stopMax, s.log)
		return
	}
	if err := s.exitError(); err != nil {
		t.Errorf("the server ended with: %v\n%s", err, s.log)
	}
}

// Kill ends the server without a warning.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if !s.markStopped() {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// Wait returns when the server has exited of its own accord, with what it exited with.
func (s *Server) Wait(t testing.TB) error {
	t.Helper()
	s.markStopped()
	select {
	case <-s.exited:
		return s.exitError()
	case <-time.After(stopMax):
		_ = s.cmd.Process.Kill()
		<-s.exited
		return errors.New("the server did not exit by itself")
	}
}

func (s *Server) markStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.stopped
	s.stopped = true
	return first
}

func (s *Server) end(t testing.TB) {
	t.Helper()
	s.Stop(t)
	if t.Failed() {
		t.Logf("the server (%v) said:\n%s", s.cmd.Args, s.log)
	}
}
