package nbd

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Connection is what can be told of a connection in the transmission phase.
type Connection struct {
	ID       uint64
	Peer     *Peer
	Export   string
	Since    time.Time
	InFlight int // requests parsed and not answered
	Bytes    int64
	Requests uint64
	Failed   uint64
	Read     uint64
	Written  uint64
	// Receiving says what the client owes us: "", "header" or "payload", when it has sent only a part of one.
	Receiving string
	// Held: the client has sent a request that waits for the end of a drained section, or its export is gone and it waits for another.
	Held bool
	// Leaving: nothing more is taken from the client; its requests in flight, or its last replies, are waited for.
	Leaving bool
	// Sending: the client does not take its replies.
	Sending bool
}

// clientsAnswerMax is how long a loop may take to tell of its connections.
const clientsAnswerMax = time.Second

// Connections lists the connections in the transmission phase. Connections of a loop that does not answer in time are told of
// without figures. Not on a loop.
func (s *Server) Connections() []Connection {
	var all []Connection
	for _, e := range s.everyExport() {
		answer := make(chan []Connection, 1)
		if !e.post(func() {
			var list []Connection
			for _, c := range e.connections() {
				list = append(list, c.describe())
			}
			answer <- list
		}) {
			continue
		}
		select {
		case list := <-answer:
			all = append(all, list...)
		case <-time.After(clientsAnswerMax):
			for _, c := range e.connections() {
				_, cut := c.evictedFor()
				all = append(all, Connection{ID: c.id, Peer: c.peer, Export: e.Name(), Since: c.began, Leaving: cut})
			}
		}
	}
	slices.SortFunc(all, func(a, b Connection) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func (c *Conn) describe() Connection {
	list := Connection{
		ID: c.id, Peer: c.peer, Export: c.export.Name(), Since: c.began, InFlight: c.inFlight, Bytes: c.bytes,
		Requests: c.stats.requests, Failed: c.stats.failed, Read: c.stats.read, Written: c.stats.written, Sending: c.out.blocked,
	}
	switch {
	case c.ended:
		list.Leaving = true
	case c.blocked && c.export.still:
		list.Held = true
	case c.large != nil || c.skip > 0:
		list.Receiving = "payload"
	case c.end > c.begin && !c.blocked:
		list.Receiving = "header"
	}
	return list
}

// Disconnect cuts a client off at once: requests in flight finish, their replies are dropped. It does not wait for that, and the connection is
// Leaving meanwhile. Safe from anywhere.
func (s *Server) Disconnect(id uint64) error {
	for _, e := range s.everyExport() {
		for _, c := range e.connections() {
			if c.id == id {
				c.evict(e, CauseDisconnected)
				return nil
			}
		}
	}
	return fmt.Errorf("there is no client %d", id)
}

// CutAll cuts all clients off: whoever stops the server is out of patience. It does not wait. Safe from anywhere.
func (s *Server) CutAll() {
	for _, e := range s.everyExport() {
		e.evictAll()
	}
}

// String names the client where requests are listed.
func (c *Conn) String() string { return fmt.Sprintf("client %d (%v)", c.id, c.peer) }
