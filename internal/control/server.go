package control

import (
	"context"
	"errors"
	"net"
	"strconv"
	"time"

	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

const (
	// removeMax is how long clients have to take their last replies when an export goes.
	removeMax = 30 * time.Second
	// stopMax is the same for all of them when the server stops.
	stopMax = 30 * time.Second
	// connectionsDefault is QEMU's since CVE-2024-7409.
	connectionsDefault = 100
)

// Address is where to listen, as QEMU's SocketAddress.
type Address struct {
	Type string // inet, unix, vsock, fd
	Host string
	Port string
	Path string
	// Abstract: Path is in the abstract namespace.
	Abstract bool
	CID      string
	FD       string
}

// Listener is a socket that is open, with what has to be tidied up after it.
type Listener struct {
	net.Listener
	Close func()
}

// service is a running NBD server.
type service struct {
	nbd          *nbd.Server
	listener     Listener
	creds, authz string // ids of objects
	shared       int    // 0 = any number of clients
	external     bool   // it belongs to somebody else, who stops it

	// Guarded by Plane.mu.
	stopping bool
}

type serverOptions struct {
	Creds *string `qmp:"tls-creds"`
	Authz *string `qmp:"tls-authz"`
	Max   *uint32 `qmp:"max-connections"`
}

// nbdServerStart takes a SocketAddressLegacy: {type, data}.
func (p *Plane) nbdServerStart(_ context.Context, call *qmp.Call) (any, error) {
	var head struct {
		Addr struct {
			Type string    `qmp:"type,enum=inet|unix|vsock|fd"`
			Data qmp.Value `qmp:"data"`
		} `qmp:"addr"`
	}
	rest, err := call.Arguments.Take(&head)
	if err != nil {
		return nil, err
	}
	address, err := readAddress(head.Addr.Type, head.Addr.Data)
	if err != nil {
		return nil, err
	}
	var o serverOptions
	if err := rest.Decode(&o); err != nil {
		return nil, err
	}
	return nil, p.startServer(address, &o)
}

// StartServer is --nbd-server: the address is a flat one.
func (p *Plane) StartServer(v qmp.Value) error {
	var head struct {
		Addr qmp.Value `qmp:"addr"`
	}
	rest, err := v.Take(&head)
	if err != nil {
		return err
	}
	var kind struct {
		Type string `qmp:"type,enum=inet|unix|vsock|fd"`
	}
	data, err := head.Addr.Take(&kind)
	if err != nil {
		return err
	}
	address, err := readAddress(kind.Type, data)
	if err != nil {
		return err
	}
	var o serverOptions
	if err := rest.Decode(&o); err != nil {
		return err
	}
	return p.startServer(address, &o)
}

func readAddress(kind string, v qmp.Value) (Address, error) {
	a := Address{Type: kind}
	switch kind {
	case "inet":
		var in struct {
			Host      string  `qmp:"host"`
			Port      string  `qmp:"port"`
			Numeric   *bool   `qmp:"numeric"`
			To        *uint16 `qmp:"to"`
			IPv4      *bool   `qmp:"ipv4"`
			IPv6      *bool   `qmp:"ipv6"`
			KeepAlive *bool   `qmp:"keep-alive"`
			MPTCP     *bool   `qmp:"mptcp"`
		}
		err := v.Decode(&in)
		a.Host, a.Port = in.Host, in.Port
		return a, err
	case "unix":
		var un struct {
			Path     string `qmp:"path"`
			Abstract bool   `qmp:"abstract,optional"`
			Tight    *bool  `qmp:"tight"`
		}
		err := v.Decode(&un)
		a.Path, a.Abstract = un.Path, un.Abstract
		return a, err
	case "vsock":
		var vs struct {
			CID  string `qmp:"cid"`
			Port string `qmp:"port"`
		}
		err := v.Decode(&vs)
		a.CID, a.Port = vs.CID, vs.Port
		return a, err
	}
	var fd struct {
		Str string `qmp:"str"`
	}
	err := v.Decode(&fd)
	a.FD = fd.Str
	if _, bad := strconv.Atoi(a.FD); err == nil && bad != nil {
		err = qmp.Errorf("File descriptor named '%s' has not been found", a.FD)
	}
	return a, err
}

func (p *Plane) startServer(address Address, o *serverOptions) error {
	s := &service{shared: connectionsDefault}
	if o.Max != nil {
		s.shared = int(*o.Max)
	}
	options := nbd.ServerOptions{ExactNames: true, ClientsMax: s.shared, Offers: p.offers, OnEvent: p.onServerEvent}
	if o.Creds != nil {
		s.creds = *o.Creds
		object := p.object(s.creds)
		switch {
		case object == nil:
			return qmp.Errorf("No TLS credentials with id '%s'", s.creds)
		case object.Credentials == nil:
			return qmp.Errorf("Object with id '%s' is not TLS credentials", s.creds)
		}
		options.TLS, options.Credentials = nbd.TLSRequired, object.Credentials
	}
	if o.Authz != nil {
		s.authz = *o.Authz
		object := p.object(s.authz)
		if object == nil || object.Authorizer == nil {
			return qmp.Errorf("TLS authorization object '%s' is not there", s.authz)
		}
		options.Authz = object.Authorizer
	}
	if err := p.claim(s); err != nil {
		return err
	}
	listener, err := p.options.Listen(address) // it may take its time to resolve a name
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.server = nil
		return err
	}
	s.listener = listener
	s.nbd = p.options.NewServer(options)
	go s.serveLoop()
	return nil
}

// claim makes s the server that is about to start.
func (p *Plane) claim(s *service) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		return qmp.Errorf("NBD server already running")
	}
	p.server = s
	return nil
}

// running returns the server, or nil while there is none, or it is about to start or stops. It expects p.mu to be held.
func (p *Plane) running() *service {
	if p.server == nil || p.server.nbd == nil || p.server.stopping {
		return nil
	}
	return p.server
}

// serveLoop takes clients until the server stops.
func (s *service) serveLoop() { _ = s.nbd.Serve(s.listener.Listener) }

// AdoptServer makes a server known that somebody else has started and stops, with its exports under the ids given.
func (p *Plane) AdoptServer(s *nbd.Server, shared int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = &service{nbd: s, shared: shared, external: true}
}

// AdoptExport makes an export known that somebody else has added, with the driver of its node.
func (p *Plane) AdoptExport(id string, e *nbd.Export, driver string) error {
	p.mu.Lock()
	if p.opened[e.Node()] == nil { // it was not opened here
		p.opened[e.Node()] = &opened{driver: driver, options: &Opening{Driver: driver}}
	}
	p.owned[e.Node().Name()] = e.Node() // by whoever runs the server, and may take away what it began with
	server := p.server
	p.mu.Unlock()
	return p.adopt(id, server, e, e.Farewell() != nbd.FarewellRestart)
}

func (p *Plane) nbdServerStop(context.Context, *qmp.Call) (any, error) {
	p.mu.Lock()
	running := p.running() != nil
	external := running && p.server.external
	p.mu.Unlock()
	switch {
	case !running:
		return nil, qmp.Errorf("NBD server not running")
	case external:
		return nil, qmp.Errorf("The NBD server of 'serve' ends with its process; use quit")
	}
	return nil, p.stopServer()
}

// stopServer takes all exports away, and then the server.
func (p *Plane) stopServer() error { return p.beginStop()() }

// beginStop is the part of stopServer after which nothing that clients ask begins any more. It does not wait; await does.
func (p *Plane) beginStop() (await func() error) {
	p.mu.Lock()
	s := p.running()
	if s == nil || s.external { // whose owner stops it
		p.mu.Unlock()
		return func() error { return nil }
	}
	s.stopping = true
	p.mu.Unlock()
	all := p.exportsNow()
	for _, e := range all {
		if farewell := e.nbd.Farewell().AtStop(); p.startRemoving(e, farewell) == nil {
			go p.removeLoop(e, farewell)
		}
	}
	if s.listener.Close != nil {
		s.listener.Close()
	}
	return func() error { return p.awaitStop(s, all) }
}

// awaitStop waits for exports on their way out, and ends the server.
func (p *Plane) awaitStop(s *service, all []*export) error {
	for _, e := range all {
		<-e.remove
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopMax)
	defer cancel()
	err := s.nbd.Stop(ctx)
	p.mu.Lock()
	p.server = nil
	p.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		return qmp.Errorf("NBD server stopped, but clients did not let go in time: %v", err)
	}
	return err
}

type serverAddArgs struct {
	Device      string     `qmp:"device"`
	Name        *string    `qmp:"name"`
	Description string     `qmp:"description,optional"`
	Writable    bool       `qmp:"writable,optional"`
	Bitmap      *qmp.Value `qmp:"bitmap"`
}

// nbdServerAdd is what QEMU had before block-export-add: a read-only node is silently exported read-only.
func (p *Plane) nbdServerAdd(ctx context.Context, _ *qmp.Call, a *serverAddArgs) (any, error) {
	n, err := p.either(a.Device)
	if err != nil {
		return nil, err
	}
	id := a.Device
	if a.Name != nil {
		id = *a.Name
	}
	o := &exportOptions{ID: id, NodeName: a.Device, Writable: a.Writable && n.Writable()}
	o.Name, o.Description = &id, a.Description
	if a.Bitmap != nil {
		o.Bitmaps = []qmp.Value{*a.Bitmap}
	}
	return nil, p.addExport(ctx, o)
}

type serverRemoveArgs struct {
	Name string `qmp:"name"`
	Mode string `qmp:"mode,optional,enum=safe|hard"`
}

func (p *Plane) nbdServerRemove(ctx context.Context, call *qmp.Call, a *serverRemoveArgs) (any, error) {
	return p.blockExportDel(ctx, call, &exportDelArgs{ID: a.Name, Mode: a.Mode})
}
