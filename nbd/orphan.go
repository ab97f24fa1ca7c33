package nbd

import "golang.org/x/sys/unix"

// orphan notes that nobody waits for replies any more, or that there will be no more requests: those of later connections for the same place come
// after what is in flight. On the loop.
func (c *Conn) orphan() {
	if c.orphaned {
		return
	}
	c.orphaned = true
	if c.inFlight > 0 {
		c.export.root.Orphan(c)
	}
}

// findOrphans looks for clients that have hung up with requests in flight: the one that comes just now may be one of them, and its requests may be
// read before the end of that connection is. On the loop.
func (e *Export) findOrphans() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		if c.inFlight > 0 && !c.orphaned && hungUp(c.fd) {
			c.orphan()
		}
	}
}

// hungUp reports whether the peer of a socket has closed it, or its own direction.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}
