package dummy

import (
	"errors"
	"net"
	"sync"
)

// Server is an export in memory. The zero value of a fault means none.
type Server struct {
	// Immutable.
	ReadOnly  bool
	NoFlush   bool                    // offer neither FLUSH nor FUA
	CorruptAt int64                   // the byte at this offset, if not zero, is read wrong
	FailAt    int64                   // a request that begins at this offset, if not zero, is answered EIO
	Twice     bool                    // answer every write twice
	Hangup    int                     // close the connection after so many requests
	Observe   func(typ, flags uint16) // sees every request

	sizeBytes int64

	// Guarded by mu.
	mu   sync.RWMutex
	data []byte
}

// New returns a server of sizeBytes of zeroes.
func New(sizeBytes int64) *Server {
	return &Server{data: make([]byte, sizeBytes), sizeBytes: sizeBytes}
}

// CopyFrom fills s, which serves nobody yet, with the bytes of o.
func (s *Server) CopyFrom(o *Server) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	copy(s.data, o.data)
}

// Serve answers the connections that arrive at ln until it is closed.
func (s *Server) Serve(ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer conn.Close()
			newConnection(s, conn).serve()
		})
	}
}

// Negotiate is the handshake alone, for who serves something else than memory, sizeBytes long. It reports whether requests follow; nothing of them
// has been received.
func Negotiate(conn net.Conn, sizeBytes int64) bool {
	c := newConnection(&Server{sizeBytes: sizeBytes}, conn)
	return c.negotiate() && c.flush() == nil && c.begin == c.end
}
