package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// lookUp finds the program of a drain's command as a shell does, with a shell's statuses. Nobody is made to wait for what cannot be run.
func (o *drainOrder) lookUp() error {
	if len(o.command) == 0 {
		return nil
	}
	name := o.command[0]
	path, err := exec.LookPath(name)
	problem, ok := errors.AsType[*exec.Error](err)
	switch {
	case err == nil:
		o.program = path
		return nil
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist): // a word, or a path
		return &failure{statusNoCommand, fmt.Errorf("%s: there is no such command", name)}
	case ok:
		err = problem.Err
	}
	return &failure{statusNotRunnable, fmt.Errorf("%s: it cannot be run: %w", name, err)}
}

// startedProcess is a process, or why there is none.
type startedProcess struct {
	process *os.Process
	err     error
}

// start runs the command. Its status comes by the channel.
func (s *section) start() (*os.Process, <-chan syscall.WaitStatus, error) {
	begun := make(chan startedProcess, 1)
	finished := make(chan syscall.WaitStatus, 1)
	go s.runOnce(begun, finished)
	started := <-begun
	return started.process, finished, started.err
}

// runOnce starts the command and reports its end. Should this program be killed, the kernel sends the command a SIGTERM: the section has
// ended then, and nobody else knows of both. It does so when the thread ends that started it, so this goroutine keeps its own.
func (s *section) runOnce(begun chan<- startedProcess, finished chan<- syscall.WaitStatus) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	process, err := os.StartProcess(s.order.program, s.order.command, &os.ProcAttr{
		Env:   append(os.Environ(), drainVariable+"="+s.id, controlVariable+"="+s.m.path),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		begun <- startedProcess{err: &failure{statusNotRunnable, err}}
		return
	}
	begun <- startedProcess{process: process}
	state, err := process.Wait()
	if err != nil {
		finished <- syscall.WaitStatus(statusFailed << 8)
		return
	}
	finished <- state.Sys().(syscall.WaitStatus)
}

// inForeground says whether Ctrl-C at the terminal reaches this program, and so whatever it has started.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == syscall.Getpgrp()
}

func exitOrNil(status int) error {
	if status == 0 {
		return nil
	}
	return exitStatus(status)
}
