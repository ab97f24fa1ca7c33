package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The standard library has no vsock sockets, but its poller takes any descriptor that can be polled: a listener and its
// connections are files.

// vsockListener accepts vsock connections.
type vsockListener struct {
	// Immutable.
	file *os.File
	addr vsockAddress
}

// vsockConn is an accepted vsock connection; reading, writing, deadlines and closing are the file's.
type vsockConn struct {
	*os.File
	local, remote vsockAddress
}

// Network implements net.Addr.
func (vsockAddress) Network() string { return "vsock" }

func (a vsockAddress) String() string { return fmt.Sprintf("%d:%d", a.cid, a.port) }

func listenVsock(a vsockAddress) (*place, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("--vsock: this kernel has no vsock sockets (%w); load the module vsock or listen elsewhere", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: a.cid, Port: a.port}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("--vsock %v: %w; choose another CID or port", a, err)
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("--vsock %v: listen: %w", a, err)
	}
	return newVsockPlace(fd, a), nil
}

// adoptVsock makes a place of a listening socket that stays the caller's.
func adoptVsock(fd int) (*place, error) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(own, true); err != nil {
		unix.Close(own)
		return nil, err
	}
	return newVsockPlace(own, vsockAddress{set: true, cid: vsockCIDAny}), nil
}

func newVsockPlace(fd int, a vsockAddress) *place {
	if bound, err := unix.Getsockname(fd); err == nil {
		a = vsockOf(bound)
	}
	l := &vsockListener{file: os.NewFile(uintptr(fd), "vsock:"+a.String()), addr: a}
	cid := "1" // VMADDR_CID_LOCAL, the loopback of vsock
	if a.cid != vsockCIDAny {
		cid = strconv.FormatUint(uint64(a.cid), 10)
	}
	return &place{listener: l, network: "vsock", host: cid, port: strconv.FormatUint(uint64(a.port), 10)}
}

func vsockOf(a unix.Sockaddr) vsockAddress {
	vm, ok := a.(*unix.SockaddrVM)
	if !ok {
		return vsockAddress{}
	}
	return vsockAddress{set: true, cid: vm.CID, port: vm.Port}
}

// Accept implements net.Listener.
func (l *vsockListener) Accept() (net.Conn, error) {
	control, err := l.file.SyscallConn()
	if err != nil {
		return nil, net.ErrClosed
	}
	var fd int
	var peer unix.Sockaddr
	var failed error
	err = control.Read(func(listening uintptr) bool {
		fd, peer, failed = unix.Accept4(int(listening), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return failed != unix.EAGAIN && failed != unix.EINTR
	})
	if err != nil {
		return nil, net.ErrClosed
	}
	if failed != nil {
		return nil, fmt.Errorf("accept: %w", failed)
	}
	remote := vsockOf(peer)
	return &vsockConn{File: os.NewFile(uintptr(fd), "vsock:"+remote.String()), local: l.addr, remote: remote}, nil
}

// Close implements net.Listener.
func (l *vsockListener) Close() error { return l.file.Close() }

// Addr implements net.Listener.
func (l *vsockListener) Addr() net.Addr { return l.addr }

// LocalAddr implements net.Conn.
func (c *vsockConn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }

var _ syscall.Conn = (*vsockConn)(nil)
