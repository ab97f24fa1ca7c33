package nfstest

import "testing"

// New makes a server without ports and without goroutines, for simulations: its calls come through Execute.
func New(t testing.TB, options Options) *Server {
	t.Helper()
	return newServer(t, options.withDefaults())
}

// unconnectedPorts are where the programs of a server without ports are said to listen.
var unconnectedPorts = map[uint32]int{progPortmap: 111, progMount: 20048, progNFS: 2049, progNLM: 32803}

// Execute executes a call to the NFS program, a record without its marks, and returns what would be sent, with marks; nil is nothing, of a server that is down. Of a
// Fault it minds what is about the execution and about the form of the reply: when and whether the reply comes is up to the caller.
func (s *Server) Execute(record []byte, f Fault) []byte { return s.execute(progNFS, record, f) }

// ExecuteAt is Execute for the program at a port; nil if there is none.
func (s *Server) ExecuteAt(port int, record []byte, f Fault) []byte {
	for prog := range unconnectedPorts {
		if port != 0 && s.port(prog) == port {
			return s.execute(prog, record, f)
		}
	}
	return nil
}

func (s *Server) execute(prog uint32, record []byte, f Fault) []byte {
	c := &conn{server: s, prog: prog, life: s.life()}
	args := &reader{rest: record}
	h, err := readHeader(args)
	if err != nil {
		s.t.Errorf("nfstest: a call whose header does not make sense: % x", record[:min(len(record), 200)])
		return nil
	}
	call, _ := s.admit(c, h, args)
	reply := s.answer(c, h, call, args, f)
	if reply == nil {
		return nil
	}
	return form(reply, f).bytes
}

func (s *Server) life() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crashes
}

// Handle is the handle by which a file is known.
func (s *Server) Handle(name string) []byte {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handle(s.mustFind(name))
}
