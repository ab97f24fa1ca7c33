package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nbd-dataplane/qmp"
)

const (
	controlVariable  = "NBD_DATAPLANE_CONTROL"
	runDirectory     = "/run/nbd-dataplane"
	runDirectoryText = runDirectory + ", $XDG_RUNTIME_DIR/nbd-dataplane"

	// greetingMax is how long a server may take to say that it is a monitor.
	greetingMax = 5 * time.Second
)

// monitor is a connection to a running server.
type monitor struct {
	*qmp.Client
	path string
}

// connect finds the server and connects to it.
func (t *ctl) connect() (*monitor, error) {
	ctx, cancel := context.WithTimeout(context.Background(), greetingMax)
	defer cancel()
	return t.connectWithin(ctx)
}

func (t *ctl) connectWithin(ctx context.Context) (*monitor, error) {
	path, err := t.find()
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, unreachable("%s: %w", path, dialProblem(err))
	}
	client, err := qmp.NewClient(ctx, conn)
	if err != nil {
		return nil, unreachable("%s: %w", path, greetingProblem(err))
	}
	return &monitor{client, path}, nil
}

// find says where the server's socket is.
func (t *ctl) find() (string, error) {
	if t.path != "" {
		return t.path, nil
	}
	if path := os.Getenv(controlVariable); path != "" {
		return path, nil
	}
	var found []string
	for _, dir := range runDirectories() {
		here, _ := filepath.Glob(filepath.Join(dir, "*.ctl"))
		found = append(found, here...)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", unreachable("no server: there is no socket *.ctl in %s; name the one of 'serve --control PATH' with --control PATH", strings.Join(runDirectories(), " or "))
	}
	return "", usagef("several servers: %s; choose one with --control PATH", strings.Join(found, ", "))
}

func runDirectories() []string {
	dirs := []string{runDirectory}
	if own := os.Getenv("XDG_RUNTIME_DIR"); own != "" {
		dirs = append(dirs, filepath.Join(own, programName))
	}
	return dirs
}

// dialProblem adds the remedy.
func dialProblem(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such socket; name the one of 'serve --control PATH'")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("nobody listens there: the server has ended, or it is no socket; start one with 'serve --control PATH'")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("permission denied: only who started the server, and root, may control it")
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EPROTOTYPE):
		return errors.New("it is no stream socket; name the one of 'serve --control PATH'")
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errors.New(strerror(errno))
	}
	return err
}

func greetingProblem(err error) error {
	if refused, ok := errors.AsType[*qmp.Error](err); ok {
		return refused
	}
	reason := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		reason = fmt.Sprintf("it said nothing for %v", greetingMax)
	}
	return fmt.Errorf("it is no monitor (%s); name the socket of 'serve --control PATH', not that of NBD", reason)
}

// ask has the server do a command. args and result may be nil.
func (m *monitor) ask(command string, args, result any) error {
	return m.askWithin(context.Background(), command, args, result)
}

func (m *monitor) askWithin(ctx context.Context, command string, args, result any) error {
	err := m.Do(ctx, command, args, result)
	if err == nil {
		return nil
	}
	answered, ok := errors.AsType[*qmp.Error](err)
	if !ok {
		return unreachable("%s: %s: %w", m.path, command, err)
	}
	status, where := statusOfAnswer(err, answered)
	if where != "" {
		err = fmt.Errorf("%w (%s)", err, printable(where))
	}
	return &failure{status, err}
}

// statusOfAnswer is the status for an error of the server, by what it says to programs and not by its words, and where it was met, if that is not in those.
func statusOfAnswer(err error, answered *qmp.Error) (status int, where string) {
	var detail errorDetail
	detail.read(err)
	status = statusFailed
	switch {
	case detail.Reason == "drain-timeout":
		status = statusBusy
	case detail.Reason == "in-use":
		status = statusInUse
	case answered.Class == qmp.DeviceNotFound:
		status = statusNotFound
	}
	return status, detail.Where
}
