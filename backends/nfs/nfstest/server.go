package nfstest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Options are what a server is like from its start. The zero value is a server that can be used.
type Options struct {
	// Address is where it listens, 127.0.0.1 if empty. Any address of the loopback range will do, and ::1.
	Address string
	// OwnAddress has it choose an address of 127.0.0.0/8 that no other server has, with the port mapper at 111, for clients
	// that cannot be told ports, like QEMU before version 9. Ports below 1024 need root.
	OwnAddress bool
	// PortmapPort, MountPort and NFSPort are the ports, 0 for any that is free. Clients that are told no ports look for
	// the port mapper at 111.
	PortmapPort, MountPort, NFSPort int
	// Locks is what lock manager there is, at LockPort.
	Locks    LockManager
	LockPort int
	// LockGrace has a time of grace begin with each Restart, which SetGrace ends.
	LockGrace bool
	// NotRegistered has the port mapper know neither MOUNT nor NFS.
	NotRegistered bool

	// Exports are the trees that can be mounted: "/export", that anybody may write to, if there are none.
	Exports []Export

	// ReadBytesMax, WriteBytesMax and WriteBytesPreferred are rtmax (and rtpref), wtmax and wtpref of FSINFO: 0 is 1 MiB.
	// Longer WRITEs are cut short, as RFC 1813 3.3.7 allows, and longer READs.
	ReadBytesMax, WriteBytesMax, WriteBytesPreferred int
	// FileBytesMax is the largest file, in bytes: 0 is 2^63-1.
	FileBytesMax uint64

	// HandleBytes is the length of file handles, from 16 to 64: 0 is 32.
	HandleBytes int
	// NoAttributes leaves out all attributes that RFC 1813 does not insist on.
	NoAttributes bool
	// AlwaysSync has each WRITE end on stable storage, and say so.
	AlwaysSync bool
	// LateExecution has calls executed whose connection the client has closed meanwhile, as a server under load may do.
	LateExecution bool
	// Squash has uid 0 be nobody.
	Squash bool
	// Seed is what verifiers and handles come from.
	Seed uint64
}

// Export is one tree.
type Export struct {
	// Path is how MOUNT knows it, "/export".
	Path string
	// Denied has MOUNT answer with MNT3ERR_ACCES. The test can put files into it all the same.
	Denied bool
	// ReadOnly has whatever would change it answered with NFS3ERR_ROFS.
	ReadOnly bool
}

// exported is an export with its root.
type exported struct {
	// Immutable.
	root *inode

	// Guarded by Server.mu.
	Export
}

// Server is an NFSv3 server. Its methods may be called from any goroutine, but not from Rule.When.
type Server struct {
	// Immutable.
	t       testing.TB
	options Options
	address netip.Addr
	exports []*exported
	salt    uint64 // of the handles
	quiet   *gate
	done    sync.WaitGroup // the goroutines

	// Guarded by mu.
	mu         sync.Mutex
	changed    *sync.Cond // a call was counted, a connection came or went
	services   []*service
	up         bool // not crashed
	crashes    int
	closed     bool
	conns      map[*conn]bool
	connsTotal int
	files      map[uint64]*inode
	nextID     uint64
	verifier   uint64
	chance     *rand.Rand
	rules      []*armed
	counts     map[Proc]int
	log        []Call
	locks      lockTable
}

func newChance(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x6e6673)) }

func (o Options) withDefaults() Options {
	orElse := func(p *int, value int) {
		if *p == 0 {
			*p = value
		}
	}
	orElse(&o.ReadBytesMax, 1<<20)
	orElse(&o.WriteBytesMax, 1<<20)
	orElse(&o.WriteBytesPreferred, o.WriteBytesMax)
	orElse(&o.HandleBytes, 32)
	if o.Address == "" {
		o.Address = "127.0.0.1"
	}
	if o.FileBytesMax == 0 {
		o.FileBytesMax = 1<<63 - 1
	}
	if len(o.Exports) == 0 {
		o.Exports = []Export{{Path: "/export"}}
	}
	return o
}

// ownAddress chooses an address at which nobody listens at port 111.
func ownAddress(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		address := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
		var l net.Listener
		if l, err = net.Listen("tcp", address+":111"); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatalf("nfstest: no address with port 111 (root is needed): %v", err)
	return ""
}

// Start starts a server, which is closed when the test ends.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	if options.OwnAddress {
		options.Address, options.PortmapPort = ownAddress(t), 111
	}
	s := newServer(t, options.withDefaults())
	t.Cleanup(s.Close)
	if err := s.openPorts(); err != nil {
		t.Fatalf("nfstest: %v", err)
	}
	return s
}

func newServer(t testing.TB, options Options) *Server {
	t.Helper()
	address, err := netip.ParseAddr(options.Address)
	if err != nil || !address.IsLoopback() {
		t.Fatalf("nfstest: %q is no address of the loopback range", options.Address)
	}
	s := &Server{
		t: t, options: options, address: address, quiet: newGate(), up: true, nextID: 1,
		chance: newChance(options.Seed), conns: map[*conn]bool{}, files: map[uint64]*inode{}, counts: map[Proc]int{},
	}
	s.changed = sync.NewCond(&s.mu)
	s.salt, s.verifier = s.chance.Uint64(), s.chance.Uint64()
	for _, e := range options.Exports {
		out := &exported{Export: e}
		out.root = s.newInode(out, true, 0o777, 0, 0)
		s.exports = append(s.exports, out)
	}
	return s
}

// openPorts has all ports listen. Whoever connects meanwhile waits for it.
func (s *Server) openPorts() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.options
	for _, want := range []struct {
		prog uint32
		port int
		has  bool
	}{{progPortmap, o.PortmapPort, true}, {progMount, o.MountPort, true}, {progNFS, o.NFSPort, true}, {progNLM, o.LockPort, o.Locks != NoLocks}} {
		if !want.has {
			continue
		}
		svc, err := reserve(s, want.prog, want.port)
		if err == nil {
			s.services = append(s.services, svc)
			err = svc.listen()
		}
		if err != nil {
			return fmt.Errorf("port %d: %w", want.port, err)
		}
	}
	return nil
}

// Close ends the server and waits for its goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed, s.rules = true, nil
	for _, svc := range s.services {
		svc.shut()
		svc.release()
	}
	s.closeConns()
	s.changed.Broadcast()
	s.mu.Unlock()
	s.quiet.open()
	s.done.Wait()
}

// closeConns closes all connections. The caller holds mu.
func (s *Server) closeConns() {
	for c := range s.conns {
		c.close(false)
	}
}

// NFSPort, MountPort and PortmapPort are where the services listen.
func (s *Server) NFSPort() int { return s.port(progNFS) }

// MountPort is that of MOUNT.
func (s *Server) MountPort() int { return s.port(progMount) }

// LockPort is that of the lock manager; 0 = there is none.
func (s *Server) LockPort() int { return s.port(progNLM) }

// PortmapPort is that of the port mapper.
func (s *Server) PortmapPort() int { return s.port(progPortmap) }

func (s *Server) port(prog uint32) int {
	if len(s.services) == 0 && (prog != progNLM || s.options.Locks != NoLocks) {
		return unconnectedPorts[prog]
	}
	for _, svc := range s.services {
		if svc.prog == prog {
			return svc.port
		}
	}
	return 0
}

// Address is what the server listens at, without a port.
func (s *Server) Address() string { return s.address.String() }

// StockURL is that of a file for QEMU and others that ask the port mapper: the server must have an OwnAddress.
func (s *Server) StockURL(path string) string { return "nfs://" + bracketed(s.address) + path }

// URL is that of a file for clients that can be told the ports: path begins with an export, "/export/disk.img".
func (s *Server) URL(path string) string {
	url := fmt.Sprintf("nfs://%s%s?nfsport=%d&mountport=%d", bracketed(s.address), path, s.NFSPort(), s.MountPort())
	if s.LockPort() != 0 {
		url += fmt.Sprintf("&nlmport=%d", s.LockPort())
	}
	return url
}

func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// Connections is how many there are now, and how many there have been.
func (s *Server) Connections() (now, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.connsTotal
}

func (s *Server) endpoint(port int) string {
	return net.JoinHostPort(s.address.String(), fmt.Sprint(port))
}
