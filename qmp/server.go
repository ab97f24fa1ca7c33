package qmp

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Version is what the greeting and query-version say, in the place where QEMU's version stands: clients decide by it what they
// may use.
type Version struct {
	QEMU struct {
		Micro int `json:"micro"`
		Minor int `json:"minor"`
		Major int `json:"major"`
	} `json:"qemu"`
	Package string `json:"package"`
}

// VersionOf is the version of a QEMU that we are like, and the name of the program that we are.
func VersionOf(major, minor, micro int, program string) Version {
	v := Version{Package: program}
	v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro = major, minor, micro
	return v
}

// Options are what a server is made of.
type Options struct {
	Version  Version
	Commands []Command

	// Quit is called when a client has said quit, after the answer has left, or after a moment where the client does not read. It
	// must not wait for Close, which waits for the commands that run. Without it there is no such command.
	Quit func()
}

// Monitor is how one door to the server behaves.
type Monitor struct {
	Pretty bool // a line for each member of an object, for people
}

// Server runs the commands of all monitors and tells them about events.
type Server struct {
	// Immutable.
	options Options
	table   map[string]Command
	order   []string // names, ours last

	mu sync.Mutex
	// Guarded by mu.
	listeners   map[net.Listener]bool
	connections map[*Connection]bool
	lastID      uint64
	quiet       bool // no command is begun any more, and no monitor comes in

	// Safe from anywhere.
	running  sync.WaitGroup // connections
	commands sync.WaitGroup // those that run; begun under mu, and none when quiet
}

// ErrClosed is returned by Serve and ServeConn of a server that has been closed, or is about to be.
var ErrClosed = errors.New("qmp: server closed")

// New panics if two commands have one name, or one has no handler.
func New(options Options) *Server {
	s := &Server{
		options:     options,
		table:       map[string]Command{},
		listeners:   map[net.Listener]bool{},
		connections: map[*Connection]bool{},
	}
	for _, command := range append(options.Commands[:len(options.Commands):len(options.Commands)], s.builtin()...) {
		if _, twice := s.table[command.Name]; twice || command.Handler == nil {
			panic("qmp: command " + command.Name + " is there twice or has no handler")
		}
		s.table[command.Name] = command
		s.order = append(s.order, command.Name)
	}
	return s
}

// Serve accepts monitors until the listener fails or the server is closed. The listener is closed then.
func (s *Server) Serve(listener net.Listener, monitor Monitor) error {
	defer listener.Close()
	if !s.addListener(listener) {
		return ErrClosed
	}
	defer s.removeListener(listener)
	return s.acceptLoop(listener, monitor)
}

func (s *Server) acceptLoop(listener net.Listener, monitor Monitor) error {
	for {
		conn, err := listener.Accept()
		switch {
		case s.isQuiet():
			if err == nil {
				conn.Close()
			}
			return ErrClosed
		case err != nil && isTransient(err):
			time.Sleep(acceptPause)
		case err != nil:
			return err
		default:
			if c, err := s.begin(conn, monitor); err == nil {
				go c.serve()
			}
		}
	}
}

// ServeConn serves one monitor over a connection that is there already, as standard input and output or one end of a socket
// pair, and returns when it has ended. It closes the connection.
func (s *Server) ServeConn(conn io.ReadWriteCloser, monitor Monitor) error {
	c, err := s.begin(conn, monitor)
	if err != nil {
		return err
	}
	c.serve()
	return nil
}

// begin finds a place for a connection, or closes it.
func (s *Server) begin(conn io.ReadWriteCloser, monitor Monitor) (*Connection, error) {
	c, err := s.enter(conn, monitor)
	if err != nil {
		refuse(conn, err)
	}
	return c, err
}

func (s *Server) enter(conn io.ReadWriteCloser, monitor Monitor) (*Connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quiet {
		return nil, ErrClosed
	}
	if len(s.connections) >= connectionsMax {
		s.stopSilent()
		return nil, Errorf("Too many monitors are connected, the limit is %d", connectionsMax)
	}
	s.lastID++
	c := newConnection(s, s.lastID, conn, monitor)
	s.connections[c] = true
	s.running.Add(1)
	return c, nil
}

// stopSilent makes room for those who come later: connections that hold a place and have not even negotiated end. It
// expects s.mu to be held.
func (s *Server) stopSilent() {
	for c := range s.connections {
		if !c.negotiated.Load() && time.Since(c.since) > silentMax {
			c.stop()
		}
	}
}

// refuse says why, in place of the greeting.
func refuse(conn io.ReadWriteCloser, err error) {
	if d, ok := conn.(interface{ SetWriteDeadline(time.Time) error }); ok && d.SetWriteDeadline(time.Now().Add(refusalMax)) == nil {
		conn.Write(plainStyle.appendMessage(nil, request{}.answer(node{}, err)))
	}
	conn.Close()
}

// leave is called once by each connection at its end.
func (s *Server) leave(c *Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, c)
	s.running.Done()
}

// Broadcast sends an event to all monitors that have negotiated. It never waits: a monitor that does not read loses its
// oldest events. It panics if encoding/json cannot encode the data.
func (s *Server) Broadcast(name string, data any) {
	event := eventOf(name, time.Now(), data)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.connections {
		if c.negotiated.Load() {
			c.out.tell(event)
		}
	}
}

// Connections is how many monitors are connected.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.connections)
}

// isTransient is true for what passes when others let go of something.
func isTransient(err error) bool {
	for _, errno := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (s *Server) greeting() node {
	version, err := nodeOf(s.options.Version)
	if err != nil {
		panic("qmp: a version is no JSON: " + err.Error())
	}
	oob := node{kind: Array, elements: []node{stringOf(string(capabilityOOB))}}
	return objectOf(member{"QMP", objectOf(member{"version", version}, member{"capabilities", oob})})
}

func (s *Server) addListener(listener net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quiet {
		return false
	}
	s.listeners[listener] = true
	return true
}

func (s *Server) removeListener(listener net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, listener)
}

// run does what a request asks for and answers. It is called for one ordinary request of a connection at a time.
func (s *Server) run(c *Connection, r request) {
	if r.err != nil {
		c.out.respond(r.answer(node{}, r.err))
		return
	}
	result, err := s.execute(c, r)
	var tree node
	if err == nil {
		tree, err = nodeOf(result)
	}
	c.out.respond(r.answer(tree, err))
	if err == nil && r.name == quit && s.options.Quit != nil {
		c.saidQuit.Store(true)
		c.out.awaitLeft(flushMax) // the end of the program closes the connection
		s.options.Quit()
	}
}

func (s *Server) execute(c *Connection, r request) (any, error) {
	if !c.negotiated.Load() {
		return c.negotiate(r)
	}
	command, known := s.table[r.name]
	switch {
	case !known:
		return nil, &Error{CommandNotFound, "The command " + r.name + " has not been found"}
	case r.oob && !command.OOB:
		return nil, Errorf("The command %s does not support OOB", r.name)
	}
	if !s.beginCommand() {
		if r.name == quit { // which is under way
			return nothing(c.ctx, nil)
		}
		return nil, errEnding
	}
	defer s.commands.Done()
	return command.Handler(c.commands, &Call{Command: r.name, Arguments: r.arguments, Connection: c, OOB: r.oob})
}
