package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nbd-dataplane/blockcore"
)

// ServerOptions configure a Server.
type ServerOptions struct {
	Limits      Limits
	TLS         TLSMode
	Credentials *TLSCredentials // nil with TLSOff
	Authz       Authorizer      // who may use the server; nil = everybody
	// ExactNames: there is no default export but the one with the empty name, as QEMU has it.
	ExactNames bool
	// ClientsMax is the number of clients served at once; the next ones wait. 0 = no limit
	// but Limits.Connections.
	ClientsMax int
	// Offers are what earlier servers have offered; nil = there was none.
	Offers *Offers
	// OnEvent receives what happens; it must not block. nil = nobody listens.
	OnEvent func(Event)
}

// Server offers exports to NBD clients.
//
// Analogous to QEMU's NBD server with its exports.
type Server struct {
	// Immutable.
	options ServerOptions
	limits  Limits
	budget  *budget // of the process
	onEvent func(Event)
	offers  *Offers
	seats   chan struct{} // one token a client, from accept to the end

	// Guarded by mu.
	mu        sync.Mutex
	exports   []*Export
	departing []*Export         // being removed: new clients do not see them
	pauses    map[string]*pause // by the name that another export must have to end it
	lanes     map[*blockcore.AioContext]*lane
	listeners map[net.Listener]struct{}
	shaking   map[net.Conn]context.CancelFunc // clients in the handshake
	stopping  bool
	clients   int           // shaking, and connections
	allGone   chan struct{} // closed when stopping and the last client is gone

	// Safe from anywhere.
	adding   sync.Mutex     // one export after the other is added: what is remembered and what is there stay the same
	pausing  sync.WaitGroup // the pauseLoops
	lastID   atomic.Uint64
	relieved atomic.Int64  // when stalled connections were last looked for, in ns since 1970
	quit     chan struct{} // closed when stopping
}

// NewServer returns a server without exports.
func NewServer(o ServerOptions) *Server {
	limits := o.Limits.withDefaults()
	seats := limits.Connections
	if o.ClientsMax > 0 {
		seats = o.ClientsMax
	}
	s := &Server{
		options:   o,
		limits:    limits,
		budget:    newBudget(limits.ProcessBytes),
		onEvent:   o.OnEvent,
		lanes:     map[*blockcore.AioContext]*lane{},
		listeners: map[net.Listener]struct{}{},
		shaking:   map[net.Conn]context.CancelFunc{},
		pauses:    map[string]*pause{},
		offers:    o.Offers,
		allGone:   make(chan struct{}),
		quit:      make(chan struct{}),
	}
	if s.offers == nil {
		s.offers = NewOffers()
	}
	if seats > 0 {
		s.seats = make(chan struct{}, seats)
	}
	return s
}

func (s *Server) emit(e Event) {
	if s.onEvent != nil {
		s.onEvent(e)
	}
}

// list implements catalog.
func (s *Server) list(p *Peer) []exportInfo {
	var infos []exportInfo
	for _, e := range s.snapshot() {
		if e.allows(p) == nil {
			infos = append(infos, e.info())
		}
	}
	return infos
}

// find implements catalog. The default export is the one with the empty name, or else, but
// for ExactNames, the first.
func (s *Server) find(name string, p *Peer) (exportInfo, bool) {
	e := s.lookup(name)
	if e == nil {
		return exportInfo{}, false
	}
	if err := e.allows(p); err != nil {
		s.emit(AccessDenied{Peer: p, Export: e.Name(), Err: err})
		return exportInfo{}, false
	}
	return e.info(), true
}

func (s *Server) lookup(name string) *Export {
	all := s.snapshot()
	for _, e := range all {
		if e.options.Name == name {
			return e
		}
	}
	if name == "" && len(all) > 0 && !s.options.ExactNames {
		return all[0]
	}
	return nil
}

func (s *Server) snapshot() []*Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.exports)
}

// everyExport is snapshot and those that are being removed, which may have clients still.
func (s *Server) everyExport() []*Export {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.exports, s.departing)
}

// allows returns nil when the export exists for p, and else why not.
func (e *Export) allows(p *Peer) error {
	if e.options.Authz == nil {
		return nil
	}
	return e.options.Authz.Authorize(p)
}

// Stop ends the server in order: no new clients, handshakes cancelled, requests in flight finished and answered,
// connections closed, those that wait for an export too. Clients are told nothing, and find a closed socket and may come back, but for those of exports that retire, which
// do so first. When ctx ends first, connections are cut off and the error says so. The exports' nodes are left to the caller.
func (s *Server) Stop(ctx context.Context) error {
	return errors.Join(s.EndInput(ctx), s.awaitClients(ctx))
}

// EndInput is the first part of Stop, and ends when clients have met the exports that retire: nothing more will be begun for any client. Whoever holds
// exports still ends that afterwards: what it has held back is not executed then. Stop has to follow.
func (s *Server) EndInput(ctx context.Context) error {
	err := s.retireExports(ctx)
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		close(s.quit)
		for l := range s.listeners {
			l.Close()
		}
		for _, cancel := range s.shaking {
			cancel()
		}
		if s.clients == 0 {
			close(s.allGone)
		}
	}
	s.mu.Unlock()
	s.closeExports()
	for _, e := range s.everyExport() {
		if e.Farewell() == FarewellCut {
			e.evictAll()
			continue
		}
		e.stopAll()
	}
	return err
}

// awaitClients is the rest of Stop.
func (s *Server) awaitClients(ctx context.Context) error {
	defer s.pausing.Wait()
	for _, e := range s.everyExport() {
		drained := make(chan struct{})
		go e.lastDrain(drained)
		defer func() { <-drained }()
	}
	select {
	case <-s.allGone:
		s.release()
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := s.clients // before the cut: some are gone a moment later
	s.mu.Unlock()
	s.CutAll()
	return s.awaitCut(left, ctx.Err())
}

// awaitCut waits for left clients that were cut off. What is still in flight in a backend must finish, since
// its memory and its node are in use.
func (s *Server) awaitCut(left int, cause error) error {
	<-s.allGone
	s.release()
	if left > 0 {
		return fmt.Errorf("stop: %d clients were cut off: %w", left, cause)
	}
	return nil
}

// release gives back what is kept for connections, and the exports' hold on their nodes.
func (s *Server) release() {
	for _, e := range s.everyExport() {
		e.letGo()
	}
}

// closeExports lets no connection into an export any more.
func (s *Server) closeExports() {
	for _, e := range s.everyExport() {
		e.close()
	}
}

// everyConnection has fn run on the loop of each.
func (s *Server) everyConnection(fn func(*Conn)) {
	for _, e := range s.everyExport() {
		for _, c := range e.connections() {
			e.post(func() { fn(c) })
		}
	}
}

// errStopping: the server takes no clients any more.
var errStopping = errors.New("server is stopping")

// enter counts a client in.
func (s *Server) enter(conn net.Conn, cancel context.CancelFunc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return errStopping
	}
	s.clients++
	s.shaking[conn] = cancel
	return nil
}

// shaken notes that a client has left the handshake.
func (s *Server) shaken(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shaking, conn)
}

// leave counts a client out.
func (s *Server) leave() {
	s.mu.Lock()
	s.clients--
	left := s.clients
	last := left == 0 && s.stopping
	s.mu.Unlock()
	if s.seats != nil {
		<-s.seats
	}
	s.emit(ClientGone{Left: left})
	if last {
		close(s.allGone) // the event of the last one comes before Stop returns
	}
}

// connectionClosed is the end of a connection. On its loop.
func (s *Server) connectionClosed(c *Conn) {
	s.emit(ConnectionClosed{
		Peer: c.peer, Export: c.export.Name(), ID: c.id, Cause: c.cause, Err: c.err,
		Requests: c.stats.requests, Failed: c.stats.failed, Read: c.stats.read, Written: c.stats.written,
		Duration: time.Since(c.began),
	})
	if c.pump != nil {
		go s.leaveAfter(c.pump)
		return
	}
	s.leave()
}

// leaveAfter counts a client out when the last bytes of its TLS connection have left.
func (s *Server) leaveAfter(p *pump) {
	p.wait()
	s.leave()
}
