package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readyMax  = 10 * time.Second
	readyStep = 200 * time.Microsecond // between two attempts to connect
	stopMax   = 10 * time.Second       // after that the server is killed
	logTail   = 2048                   // bytes of a dead server's output that an error shows

	greetingBytes = 18 // NBD proto.md, "Handshake".
)

// Instance is a running server.
type Instance struct {
	// Immutable.
	Kind  Kind
	PID   int           // of the process that serves; it may have children
	URI   string        // where
	Ready time.Duration // from the start of the process to its first greeting

	setup  Setup
	log    *bytes.Buffer // complete once exited is closed
	exited chan struct{} // the process we started has ended
}

// Start runs a server and returns once it greets. A failure shows what the server said.
func Start(k Kind, s Setup) (*Instance, error) {
	argv, err := k.commandLine(s)
	if err != nil {
		return nil, err
	}
	in := &Instance{Kind: k, setup: s, log: new(bytes.Buffer), exited: make(chan struct{})}
	in.URI = fmt.Sprintf("nbd+unix:///%s?socket=%s", k.export, s.socket())
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = in.log, in.log
	cmd.WaitDelay = time.Second // a daemon may keep our pipe
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", k.Name, err)
	}
	in.PID = cmd.Process.Pid
	go in.waitProcess(cmd)
	if err := in.waitReady(begin); err != nil {
		_ = in.Stop()
		return nil, fmt.Errorf("starting %s: %w: %s", k.Name, err, in.tail())
	}
	return in, nil
}

// waitProcess collects the process we started. It ends with it.
func (in *Instance) waitProcess(cmd *exec.Cmd) {
	_ = cmd.Wait() // how it ended is of no interest: the socket tells whether it serves
	close(in.exited)
}

func (in *Instance) tail() string {
	<-in.exited
	b := in.log.Bytes()
	return strings.TrimSpace(string(b[max(0, len(b)-logTail):]))
}

var errExited = errors.New("it ended at once")

// waitReady returns when the server has greeted a connection.
func (in *Instance) waitReady(begin time.Time) error {
	for {
		err := greeted(in.setup.socket())
		if err == nil {
			in.Ready = time.Since(begin)
			return in.findDaemon()
		}
		select {
		case <-in.exited:
			if !in.Kind.daemonizes {
				return errExited
			}
		default:
		}
		if time.Since(begin) > readyMax {
			return fmt.Errorf("not ready after %v: %w", readyMax, err)
		}
		time.Sleep(readyStep)
	}
}

func greeted(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(readyMax)); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, greetingBytes))
	return err
}

// findDaemon learns the process that serves, where it is not the one we started.
func (in *Instance) findDaemon() error {
	if !in.Kind.daemonizes {
		return nil
	}
	for begin := time.Now(); ; time.Sleep(readyStep) {
		text, err := os.ReadFile(in.setup.pidFile())
		if err == nil {
			in.PID, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		if err == nil {
			return nil
		}
		if time.Since(begin) > readyMax {
			return fmt.Errorf("reading its pid file: %w", err)
		}
	}
}

// Stop ends the server and waits until it is gone.
func (in *Instance) Stop() error {
	fd, err := unix.PidfdOpen(in.PID, 0)
	if err == unix.ESRCH {
		return nil // gone by itself
	}
	if err != nil {
		return fmt.Errorf("stopping %s: %w", in.Kind.Name, err)
	}
	defer unix.Close(fd)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && err != unix.ESRCH {
			return fmt.Errorf("stopping %s: %w", in.Kind.Name, err)
		}
		if gone(fd, stopMax) {
			<-in.exited
			_ = os.Remove(in.setup.socket()) // some leave it, and it is in the way of the next
			return nil
		}
	}
	return fmt.Errorf("stopping %s: process %d survives SIGKILL", in.Kind.Name, in.PID)
}

// gone waits for the end of the process behind a pidfd.
func gone(fd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for left := limit; left > 0; left = time.Until(deadline) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(left.Milliseconds())+1); err == nil && n == 1 {
			return true
		}
	}
	return false
}
