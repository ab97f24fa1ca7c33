package nfstest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// service is one program at its port. The port stays reserved while nobody listens: a socket that is bound, and does not
// listen, has clients refused and keeps others off the port.
type service struct {
	// Immutable.
	server   *Server
	prog     uint32
	port     int
	reserved int // the socket's descriptor

	// Guarded by Server.mu.
	listener net.Listener
}

func reserve(s *Server, prog uint32, port int) (*service, error) {
	family, at := sockaddr(s.address, port)
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	svc := &service{server: s, prog: prog, reserved: fd}
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		svc.release()
		return nil, err
	}
	if err := syscall.Bind(fd, at); err != nil {
		svc.release()
		return nil, err
	}
	svc.port, err = boundPort(fd)
	return svc, err
}

func sockaddr(address netip.Addr, port int) (family int, at syscall.Sockaddr) {
	if address.Is6() {
		return syscall.AF_INET6, &syscall.SockaddrInet6{Port: port, Addr: address.As16()}
	}
	return syscall.AF_INET, &syscall.SockaddrInet4{Port: port, Addr: address.As4()}
}

func boundPort(fd int) (int, error) {
	at, err := syscall.Getsockname(fd)
	switch at := at.(type) {
	case *syscall.SockaddrInet4:
		return at.Port, nil
	case *syscall.SockaddrInet6:
		return at.Port, nil
	}
	return 0, err
}

func (svc *service) release() {
	if svc.reserved >= 0 {
		syscall.Close(svc.reserved)
		svc.reserved = -1
	}
}

// listen has connections accepted. The caller holds Server.mu.
func (svc *service) listen() error {
	if svc.listener != nil {
		return nil
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", svc.server.endpoint(svc.port))
	if err != nil {
		return err
	}
	svc.listener = l
	svc.server.done.Add(1)
	go svc.acceptLoop(l)
	return nil
}

// shut has connections refused.
func (svc *service) shut() {
	if svc.listener != nil {
		svc.listener.Close()
		svc.listener = nil
	}
}

func (svc *service) acceptLoop(l net.Listener) {
	defer svc.server.done.Done()
	for {
		socket, err := l.Accept()
		if err != nil {
			return
		}
		svc.server.adopt(svc.prog, socket.(*net.TCPConn))
	}
}

// adopt makes a connection of a socket, unless the server is down by now.
func (s *Server) adopt(prog uint32, socket *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.up {
		socket.Close()
		return
	}
	s.connsTotal++
	c := newConn(s, prog, socket, s.connsTotal)
	s.conns[c] = true
	s.changed.Broadcast()
	s.done.Add(3)
	go c.readLoop()
	go c.executeLoop()
	go c.writeLoop()
}

// gate is a door that goroutines pass while it is open.
type gate struct {
	// Guarded by mu.
	mu     sync.Mutex
	isOpen chan struct{} // closed while the door is open
}

func newGate() *gate {
	g := &gate{isOpen: make(chan struct{})}
	close(g.isOpen)
	return g
}

func (g *gate) pass() {
	g.mu.Lock()
	c := g.isOpen
	g.mu.Unlock()
	<-c
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.isOpen:
	default:
		close(g.isOpen)
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.isOpen:
		g.isOpen = make(chan struct{})
	default:
	}
}
