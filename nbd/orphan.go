package nbd

import (
	"slices"

	"golang.org/x/sys/unix"
)

// orphan notes that nobody waits for replies any more, or that there will be no more requests: those of later connections for the same place come
// after what is in flight. On the loop.
func (c *Conn) orphan() {
	if c.orphaned {
		return
	}
	c.orphaned = true
	if c.inFlight > 0 {
		c.export.root.Orphan(c, c.inFlight)
	}
}

// findOrphans looks for clients that have hung up: the one that comes just now may be one of them. What they have sent goes first, though the loop has not read it yet, or not seen
// the end of it. On the loop.
func (e *Export) findOrphans() {
	for _, c := range e.hungUp() {
		c.orphan()
		c.readOut()
	}
}

// hungUp returns the connections whose peers have closed them, or their own direction, in the order in which they came.
func (e *Export) hungUp() (gone []*Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	asked := make([]*Conn, 0, len(e.conns))
	polls := make([]unix.PollFd, 0, len(e.conns))
	for c := range e.conns {
		if c.watcher != nil && !c.ended {
			asked = append(asked, c)
			polls = append(polls, unix.PollFd{Fd: int32(c.fd), Events: unix.POLLRDHUP})
		}
	}
	if n, err := unix.Poll(polls, 0); n <= 0 || err != nil {
		return nil
	}
	for i, c := range asked {
		if polls[i].Revents != 0 {
			gone = append(gone, c)
		}
	}
	slices.SortFunc(gone, byComing)
	return gone
}

// readOut takes what a client that has hung up has sent, as far as it can be taken now. What is done at once counts for no other bound on requests, so there is one here: who is there has
// to get on, too.
func (c *Conn) readOut() {
	for most := c.stats.requests + uint64(c.limits.Requests); c.stats.requests < most && !c.ended && !c.blocked; {
		c.answering = false
		if !c.ReadyIn() {
			return
		}
	}
}
