package qmp

// A server of monitors ends in two steps. Between them whatever the commands are about can be taken down, while monitors are still connected:
// they hear of it by events, and what they ask is answered.
//
//	Quiet   nobody comes in, no command is begun, those that run are told to give up
//	Await   these have returned
//	Close   what is to be said still leaves, for flushMax at most, and the connections are closed

// errEnding answers what is asked too late.
var errEnding = Errorf("The program is about to end, no command is run any more")

// Quiet stops accepting and has no command begun any more: what is asked from now on is refused, but for quit, which is granted. Commands
// that run find their context ended. It does not wait.
func (s *Server) Quiet() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shutDoor()
	for c := range s.connections {
		c.giveUp()
	}
}

// shutDoor is called with s.mu held.
func (s *Server) shutDoor() {
	s.quiet = true
	for listener := range s.listeners {
		listener.Close()
	}
}

// Await waits after Quiet for the commands that run. A handler that ignores its context is waited for.
func (s *Server) Await() { s.commands.Wait() }

// Close is Quiet, then ends the contexts of all connections, lets the commands that run return and their answers leave, and closes the
// connections. It waits for all that, and for a client that does not read no longer than flushMax.
func (s *Server) Close() {
	s.mu.Lock()
	s.shutDoor()
	for c := range s.connections {
		c.stop()
	}
	s.mu.Unlock()
	s.running.Wait()
}

func (s *Server) isQuiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.quiet
}

// beginCommand reports whether a command may be run; it is counted then until commands.Done.
func (s *Server) beginCommand() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.quiet {
		s.commands.Add(1)
	}
	return !s.quiet
}
