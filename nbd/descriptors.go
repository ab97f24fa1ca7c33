package nbd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// descriptors are the file descriptors that a client needs when its handshake is over. They are taken before it begins, so
// that a server which is short of them makes clients wait, and not shake hands in vain.
type descriptors struct {
	socket int           // a duplicate, which no goroutine waits for; -1 = none
	engine int           // one end of a socket pair for TLS; -1 = none
	clear  *net.UnixConn // the other end
}

// reserve takes what conn will need.
func (s *Server) reserve(conn net.Conn) (descriptors, error) {
	d := descriptors{socket: -1, engine: -1}
	var err error
	if s.options.TLS != TLSOff {
		if d.engine, d.clear, err = newSocketPair(); err != nil {
			return d, err
		}
	}
	if d.socket, err = duplicate(conn); err != nil {
		d.close()
		return d, err
	}
	return d, nil
}

// close gives back what was not used.
func (d *descriptors) close() {
	for _, fd := range []*int{&d.socket, &d.engine} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	if d.clear != nil {
		d.clear.Close()
		d.clear = nil
	}
}

// short reports whether err says that the process or the machine has no descriptor left, or no memory for one.
func short(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS)
}

// newSocketPair makes the socket that TLS is pumped through.
func newSocketPair() (engine int, clear *net.UnixConn, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("socket pair for TLS: %w", err)
	}
	f := os.NewFile(uintptr(pair[1]), "tls")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		unix.Close(pair[0])
		return -1, nil, fmt.Errorf("socket pair for TLS: %w", err)
	}
	return pair[0], conn.(*net.UnixConn), nil
}

// duplicate returns another descriptor of the socket under conn.
func duplicate(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("connection of type %T has no file descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, errDup := -1, error(nil)
	err = raw.Control(func(own uintptr) {
		fd, errDup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, errDup); err != nil {
		return -1, fmt.Errorf("duplicate the socket of a client: %w", err)
	}
	return fd, nil
}
