package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// runChild runs the command of --run in a shell, with what it needs to connect in its environment, and returns its status
// as an exitStatus. When ctx ends the command is told to terminate.
func (s *session) runChild(ctx context.Context, command string) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), s.childEnvironment()...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &ended):
		return exitStatus(statusOf(ended.Sys().(syscall.WaitStatus)))
	}
	return fmt.Errorf("--run: %w", err)
}

// statusOf is the status a shell reports.
func statusOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// childEnvironment has nbdkit's variables: uri, nbd (QEMU's name of the same), unixsocket, port and exportname. They speak
// of the first export.
func (s *session) childEnvironment() []string {
	p, name := s.places[0], s.exports[0]
	return []string{
		"uri=" + p.uri(name, s.isTLS()),
		"nbd=" + p.qemuName(name),
		"unixsocket=" + p.path,
		"port=" + p.port,
		"exportname=" + name,
	}
}
