package nfstest

import "math/rand/v2"

// Loss is what a crash leaves of the data that no COMMIT had covered.
type Loss int

// The losses.
const (
	LoseAll  Loss = iota // nothing of it
	LoseSome             // of each sector of 512 bytes chance leaves the old or the new
)

// Crash is the power going: data that is not stable is lost, connections are closed, new ones refused until Restart.
func (s *Server) Crash(loss Loss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = false
	s.crashes++
	for _, svc := range s.services {
		svc.shut()
	}
	s.lose(loss)
	s.locks.of = nil
	s.closeConns()
}

// Restart has the server serve again after a Crash, at the same ports.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up = true
	s.locks.grace = s.options.LockGrace
	s.listenAll()
}

func (s *Server) listenAll() {
	s.t.Helper()
	for _, svc := range s.services {
		if err := svc.listen(); err != nil && !s.closed {
			s.t.Errorf("nfstest: listen again at port %d: %v", svc.port, err)
		}
	}
}

// LoseUnstable is a crash between two calls that no connection notices: only the verifier tells.
func (s *Server) LoseUnstable(loss Loss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(loss)
}

// Forget is LoseUnstable with the verifier as it was: what a server may do that tells of it by failing a COMMIT.
func (s *Server) Forget(loss Loss) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loseData(loss)
}

func (s *Server) lose(loss Loss) {
	s.loseData(loss)
	s.verifier = s.chance.Uint64()
}

func (s *Server) loseData(loss Loss) {
	var chance *rand.Rand
	if loss == LoseSome {
		chance = s.chance
	}
	for id := uint64(1); id < s.nextID; id++ { // in an order that is always the same
		if f := s.files[id]; f != nil {
			f.crash(chance)
		}
	}
}

// ChangeVerifier changes the write verifier and loses nothing: a server must, if it only might have lost something.
func (s *Server) ChangeVerifier() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verifier = s.chance.Uint64()
}

// SyncAll is the cache being written back: everything is stable, and the verifier stays.
func (s *Server) SyncAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		f.sync(span{0, 1<<63 - 1})
	}
}

// Refuse has new connections refused until Accept; those that there are stay.
func (s *Server) Refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, svc := range s.services {
		svc.shut()
	}
}

// Accept ends Refuse.
func (s *Server) Accept() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.up {
		s.listenAll()
	}
}

// Silence has nothing executed and nothing answered until Speak, on old connections and on new ones, which are accepted.
// Calls that came meanwhile are executed then.
func (s *Server) Silence() { s.quiet.shut() }

// Speak ends Silence.
func (s *Server) Speak() { s.quiet.open() }

// DropConnections closes all connections, with a reset if it is wanted.
func (s *Server) DropConnections(reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.close(reset)
	}
}
