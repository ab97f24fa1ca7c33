package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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
	var t trouble
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			t.over()
			if !s.receive(conn, &t) {
				return nil
			}
		case s.stopped():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case !t.pause(s, err):
			return nil
		}
	}
}

// receive takes a client that has connected in, as soon as there are a seat and descriptors for it; false = the server is
// stopping. A client that waits has no greeting yet.
func (s *Server) receive(conn net.Conn, t *trouble) bool {
	if !s.takeSeat() {
		conn.Close()
		return false
	}
	for {
		d, err := s.reserve(conn)
		switch {
		case err == nil:
			t.over()
			s.welcome(conn, d)
			return true
		case short(err) && t.pause(s, err):
			continue
		case !s.stopped():
			s.emit(AcceptFailed{Err: err})
		}
		conn.Close()
		s.freeSeat()
		return !s.stopped()
	}
}

// trouble is a stretch of time in which a listener cannot take clients in. It is told once.
type trouble struct{ told bool }

func (t *trouble) over() { t.told = false }

// pause lets acceptPause pass; false = the server is stopping.
func (t *trouble) pause(s *Server, err error) bool {
	if !t.told {
		t.told = true
		s.emit(AcceptFailed{Err: err})
	}
	select {
	case <-time.After(acceptPause):
		return true
	case <-s.quit:
		return false
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
func (s *Server) welcome(conn net.Conn, d descriptors) {
	ctx, cancel := context.WithCancel(context.Background())
	if err := s.enter(conn, cancel); err != nil {
		cancel()
		conn.Close()
		d.close()
		s.freeSeat()
		return
	}
	s.emit(ConnectionAccepted{Peer: newPeer(conn)})
	go s.handshakeLoop(ctx, cancel, conn, d)
}

// handshakeLoop negotiates with one client and hands its socket to the export's loop. It ends with the handshake.
func (s *Server) handshakeLoop(ctx context.Context, cancel context.CancelFunc, conn net.Conn, d descriptors) {
	defer cancel()
	tune(conn)
	agreed, secured, peer, err := handshake(ctx, conn, s, s.handshakeOptions())
	s.shaken(conn)
	if err == nil {
		err = s.transmit(agreed, secured, peer, &d)
	}
	if err != nil {
		conn.Close()
		d.close()
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

// transmit moves a client to the loop of its export. On error the connection is the caller's, and so are the descriptors.
func (s *Server) transmit(agreed negotiated, conn net.Conn, peer *Peer, d *descriptors) error {
	e := agreed.export.Export  // and not who has the name by now: the client was told of this one
	agreed.export.Export = nil // c may outlive it
	welcome := agreed.welcome
	agreed.welcome = nil
	p, fd := d.descriptor(conn)
	c := &Conn{
		id: s.lastID.Add(1), server: s, export: e, fd: fd, pump: p, peer: peer, welcome: welcome,
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
func (d *descriptors) descriptor(conn net.Conn) (*pump, int) {
	use := &d.socket
	var p *pump
	if t, ok := conn.(*tls.Conn); ok {
		p = newPump(t, d.clear)
		d.clear, use = nil, &d.engine
	} else {
		conn.Close() // from now on no goroutine waits for it
	}
	fd := *use
	*use = -1
	d.close()
	return p, fd
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
