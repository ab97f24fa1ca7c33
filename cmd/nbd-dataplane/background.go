package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Going to the background. A Go process has threads from its first moment and cannot fork, so the parent starts the
// program again, with the same arguments and a mark in the environment, and stays until the child says that clients can
// connect:
//
//	parent                          child (own session, stdin /dev/null)
//	  | its own stdout ----------- 1: the same, until it is ready: --print-uri writes there
//	  | read stderr -------------- 2: a pipe to the parent, until it is ready
//	  | read ready  -------------- n: a pipe; one byte says that it is ready
//	  |                           n+1: the parent's stderr, for -v
//	  | ready: exit 0; end of file: exit 1
//
// Sockets handed over by systemd keep their numbers, from 3 on; n is the first number after them.

// envBackground marks the child; its value is n.
const envBackground = "NBD_DATAPLANE_BACKGROUND"

// goToBackground starts the child and waits until it is ready or has ended.
func goToBackground(c console, d door) error {
	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("--fork: %w", err)
	}
	defer readyRead.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	handed := activatedFiles()
	cmd.Stdout = os.Stdout
	cmd.ExtraFiles = append(handed, readyWrite, os.Stderr)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envBackground, firstActivated+len(handed)))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("--fork: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("--fork: start in the background: %w", err)
	}
	readyWrite.Close()
	said, _ := io.Copy(c.err, stderr)
	_, err = readyRead.Read(make([]byte, 1))
	isReady := err == nil
	if !isReady {
		cmd.Wait()
		return exitStatus(1)
	}
	if said > 0 && d == doorQEMU {
		return exitStatus(1) // qemu-nbd's parent takes any word, even a warning, for a failure
	}
	return nil
}

// activatedFiles are the sockets handed over, for the child.
func activatedFiles() []*os.File {
	var files []*os.File
	for n := range activatedCount() {
		files = append(files, os.NewFile(uintptr(firstActivated+n), "LISTEN_FD"))
	}
	return files
}

// background is the child's side. A nil one is a process in the foreground.
type background struct {
	// Immutable.
	ready  *os.File
	stderr *os.File // the parent's
}

// inBackground returns the child's side if this process is one, and takes its mark away so that nothing inherits it.
func inBackground() *background {
	n, err := strconv.Atoi(os.Getenv(envBackground))
	if err != nil || n < firstActivated {
		return nil
	}
	os.Unsetenv(envBackground)
	unix.CloseOnExec(n)
	unix.CloseOnExec(n + 1)
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getppid()) {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	return &background{ready: os.NewFile(uintptr(n), "ready"), stderr: os.NewFile(uintptr(n+1), "stderr")}
}

// announce lets the parent go. With keepErrors the standard error goes back to where the parent's went, otherwise nowhere.
func (b *background) announce(keepErrors bool) error {
	if b == nil {
		return nil
	}
	defer b.ready.Close()
	defer b.stderr.Close()
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("--fork: %w", err)
	}
	nowhere, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("--fork: %w", err)
	}
	defer nowhere.Close()
	errors := nowhere
	if keepErrors {
		errors = b.stderr
	}
	if _, err := b.ready.Write([]byte{1}); err != nil {
		return fmt.Errorf("--fork: the parent has gone: %w", err)
	}
	for fd, to := range map[int]*os.File{1: nowhere, 2: errors} {
		if err := unix.Dup3(int(to.Fd()), fd, 0); err != nil {
			return fmt.Errorf("--fork: redirect descriptor %d: %w", fd, err)
		}
	}
	return nil
}
