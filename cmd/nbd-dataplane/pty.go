package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/qmp"
)

// ptyLook is how often a pseudo-terminal without a client is looked at: the kernel tells us when one leaves and not when one comes. QEMU looks
// once a second.
const ptyLook = 200 * time.Millisecond

// pty is a pseudo-terminal that monitors come in by, one after the other: whoever opens its other end is greeted.
type pty struct {
	// Immutable.
	master *os.File
	name   string        // of the other end
	closed chan struct{} // closed by Close
	free   chan struct{} // holds a token while no session is open; who takes it has one, or closes the terminal

	// Safe from anywhere.
	once sync.Once
}

// makePTYChardev makes a pseudo-terminal.
func makePTYChardev(qmp.Value) (*chardev, error) {
	p, err := openPTY()
	if err != nil {
		return nil, qmp.Errorf("Failed to create PTY: %s", strerror(errnoOf(err)))
	}
	return &chardev{place: &place{listener: p, network: "pty", path: p.name}}, nil
}

func openPTY() (*pty, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p := &pty{master: os.NewFile(uintptr(fd), "/dev/ptmx"), closed: make(chan struct{}), free: make(chan struct{}, 1)}
	if err := p.prepare(fd); err != nil {
		p.master.Close()
		return nil, err
	}
	p.free <- struct{}{}
	return p, nil
}

// prepare lets the other end be opened, and opens and closes it: from then on the kernel tells whether somebody has it.
func (p *pty) prepare(fd int) error {
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	number, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return err
	}
	p.name = fmt.Sprintf("/dev/pts/%d", number)
	other, err := unix.Open(p.name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(other)
	return makeRaw(other, 0)
}

// Accept waits until the monitor before has gone and somebody has the other end open.
func (p *pty) Accept() (net.Conn, error) {
	select {
	case <-p.free:
	case <-p.closed:
		return nil, net.ErrClosed
	}
	if err := p.waitForClient(); err != nil {
		p.giveBack()
		return nil, err
	}
	return &ptySession{pty: p}, nil
}

func (p *pty) waitForClient() error {
	look := time.NewTicker(ptyLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-p.closed:
			return net.ErrClosed
		}
		if open, err := p.isOpen(); err != nil {
			return err
		} else if open {
			return p.master.SetDeadline(time.Time{})
		}
	}
}

// isOpen says whether somebody has the other end.
func (p *pty) isOpen() (open bool, err error) {
	raw, err := p.master.SyscallConn()
	if err != nil {
		return false, err
	}
	failed := raw.Control(func(fd uintptr) {
		look := []unix.PollFd{{Fd: int32(fd)}}
		_, err = unix.Poll(look, 0)
		open = err == nil && look[0].Revents&unix.POLLHUP == 0
	})
	if errors.Is(err, unix.EINTR) {
		err = nil // at the next look
	}
	return open, errors.Join(failed, err)
}

// Close takes no client in any more. One that is there goes on until its session ends.
func (p *pty) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.closeIfFree()
}

// closeIfFree closes the terminal when it was closed by its owner and no client has it.
func (p *pty) closeIfFree() error {
	select {
	case <-p.closed:
	default:
		return nil
	}
	select {
	case <-p.free:
		return p.master.Close()
	default: // of a session, or of a wait in Accept, which comes here when it ends
		return nil
	}
}

// giveBack lets the next client have the terminal.
func (p *pty) giveBack() {
	p.free <- struct{}{}
	_ = p.closeIfFree()
}

// Addr is the other end.
func (p *pty) Addr() net.Addr { return &net.UnixAddr{Name: p.name, Net: "pty"} }

// ptySession is the time in which one client has the other end open.
type ptySession struct {
	// Immutable.
	*pty

	// Safe from anywhere.
	over sync.Once
}

// Read ends where the client closes its end.
func (s *ptySession) Read(b []byte) (int, error) {
	n, err := s.master.Read(b)
	if errors.Is(err, unix.EIO) {
		err = io.EOF
	}
	return n, err
}

func (s *ptySession) Write(b []byte) (int, error) { return s.master.Write(b) }

// Close leaves the terminal to the next client.
func (s *ptySession) Close() error {
	s.over.Do(func() {
		_ = s.master.SetDeadline(pastTime) // for who reads and writes; a terminal that is closed has no such
		s.giveBack()
	})
	return nil
}

// LocalAddr and its like make a net.Conn of a session.
func (s *ptySession) LocalAddr() net.Addr                { return s.Addr() }
func (s *ptySession) RemoteAddr() net.Addr               { return s.Addr() }
func (s *ptySession) SetDeadline(t time.Time) error      { return s.master.SetDeadline(t) }
func (s *ptySession) SetReadDeadline(t time.Time) error  { return s.master.SetReadDeadline(t) }
func (s *ptySession) SetWriteDeadline(t time.Time) error { return s.master.SetWriteDeadline(t) }
