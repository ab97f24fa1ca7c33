package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// acceptPause is how long a listener in trouble, short of file descriptors as a rule, is left alone.
const acceptPause = 100 * time.Millisecond

// Serve takes clients from l until Stop, and then returns nil. l is closed in any case.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		l.Close()
		return nil
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	err := s.acceptLoop(l)
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
	l.Close()
	return err
}

// acceptLoop accepts clients and gives each a seat. One that finds none waits for it without a greeting, and those behind it
// in the backlog, as QEMU has it. No seat is held for a client that is still to come: another listener may have one.
func (s *Server) acceptLoop(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err == nil {
			if !s.takeSeat() {
				conn.Close()
				return nil
			}
			s.welcome(conn)
			continue
		}
		if s.stopped() {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept: %w", err)
		}
		s.emit(AcceptFailed{Err: err})
		select {
		case <-time.After(acceptPause):
		case <-s.quit:
			return nil
		}
	}
}

// takeSeat waits for room for one more client; false = the server is stopping.
func (s *Server) takeSeat() bool {
	if s.seats == nil {
		return !s.stopped()
	}
	select {
	case <-s.quit:
		return false
	case s.seats <- struct{}{}:
		return true
	}
}

func (s *Server) freeSeat() {
	if s.seats != nil {
		<-s.seats
	}
}

func (s *Server) stopped() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

// welcome starts the handshake with a client that has a seat.
func (s *Server) welcome(conn net.Conn) {
	ctx, cancel := context.WithCancel(context.Background())
	if err := s.enter(conn, cancel); err != nil {
		cancel()
		conn.Close()
		s.freeSeat()
		return
	}
	s.emit(ConnectionAccepted{Peer: newPeer(conn)})
	go s.handshakeLoop(ctx, cancel, conn)
}

// handshakeLoop negotiates with one client and hands its socket to the export's loop. It ends with the handshake.
func (s *Server) handshakeLoop(ctx context.Context, cancel context.CancelFunc, conn net.Conn) {
	defer cancel()
	tune(conn)
	agreed, secured, peer, err := handshake(ctx, conn, s, s.handshakeOptions())
	s.shaken(conn)
	if err == nil {
		err = s.transmit(agreed, secured, peer)
	}
	if err != nil {
		conn.Close()
		s.emit(NegotiationFailed{Peer: peer, Err: err})
		s.leave()
	}
}

func (s *Server) handshakeOptions() handshakeOptions {
	return handshakeOptions{
		tls:          s.options.TLS,
		credentials:  s.options.Credentials,
		authorizer:   s.options.Authz,
		deadline:     s.limits.Handshake,
		shuttingDown: s.stopped,
	}
}

// transmit moves a client to the loop of its export. On error the connection is the caller's.
func (s *Server) transmit(agreed negotiated, conn net.Conn, peer *Peer) error {
	e := agreed.export.Export // and not who has the name by now: the client was told of this one
	p, fd, err := descriptor(conn)
	if err != nil {
		return err
	}
	c := &Conn{
		id: s.lastID.Add(1), server: s, export: e, fd: fd, pump: p, peer: peer,
		agreed: agreed, style: agreed.style(), limits: s.limits, began: time.Now(),
	}
	if err := e.add(c); err != nil {
		unix.Close(fd)
		return err
	}
	s.emit(ConnectionOpened{Peer: peer, Export: e.Name(), ID: c.id})
	if !e.post(c.start) {
		e.remove(c)
		unix.Close(fd)
		return errStopping
	}
	return nil
}

// descriptor returns a non-blocking socket that carries the bytes of conn in clear, and takes conn over.
// The pump is nil if conn is in clear.
func descriptor(conn net.Conn) (*pump, int, error) {
	if t, ok := conn.(*tls.Conn); ok {
		return newPump(t)
	}
	fd, err := detach(conn)
	return nil, fd, err
}

// detach takes the socket out of conn, which is closed: from now on no goroutine waits for it.
func detach(conn net.Conn) (int, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("connection of type %T has no file descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	fd, errDup := -1, error(nil)
	err = raw.Control(func(own uintptr) {
		fd, errDup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, errDup); err != nil {
		return 0, fmt.Errorf("detach socket: %w", err)
	}
	conn.Close()
	return fd, nil
}

// Keepalive finds clients that vanished without a word: after half a minute of silence a probe every ten
// seconds, three of them.
const (
	keepIdle     = 30 * time.Second
	keepInterval = 10 * time.Second
	keepCount    = 3
)

// unixSendBuffer takes several replies of 1 MiB, in bytes; the kernel's default makes the server wait for the client
// several times. TCP adapts by itself.
const unixSendBuffer = 4 << 20

// widen enlarges the send buffer, beyond the limit for ordinary users where we may.
func widen(u *net.UnixConn) {
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, unixSendBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, unixSendBuffer)
		}
	})
}

// tune sets what all connections want.
func tune(conn net.Conn) {
	if u, ok := conn.(*net.UnixConn); ok {
		widen(u)
	}
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetNoDelay(true)
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount})
}
