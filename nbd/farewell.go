package nbd

import "golang.org/x/sys/unix"

// When we end a connection that the client would have gone on with, there may be requests in its socket that nobody has
// read. TCP answers close(2) then with a reset, and a reset throws away what of our replies the network has not delivered
// yet. So the end is said first, by shutting our direction down, and what still comes is dropped until the client closes
// too, for Limits.Farewell at most. A client that has acknowledged all and asked for nothing more has nothing to lose, and
// need not be waited for: an idle QEMU looks at its socket only with its next request.
//
// A unix socket delivers what was sent before it, whatever is unread. A pump does the same for TLS.

// owesFarewell reports whether closing now could take replies away.
func (c *Conn) owesFarewell() bool {
	return !c.broken && (c.cause == CauseStopped || c.cause == CauseProtocol)
}

// farewell begins to part from the client, unless there is no need, and reports whether the connection has to stay for it.
func (c *Conn) farewell() bool {
	if c.leaving {
		return !c.broken
	}
	if !c.owesFarewell() || c.pump != nil || isUnix(c.fd) || settled(c.fd) || unix.Shutdown(c.fd, unix.SHUT_WR) != nil {
		return false
	}
	c.leaving = true
	if c.linger != nil {
		c.linger.Stop()
	}
	c.linger = c.ctx.After(c.limits.Farewell, c.close)
	c.release(c.reserved)
	c.watcher.Heat()
	return true
}

// dropInput reads what comes after the farewell, for nobody, and closes the connection when the client has. It reports
// whether there was something.
func (c *Conn) dropInput() bool {
	s := c.lane.slab()
	n, errno := recv(c.fd, s.memory)
	c.lane.drop(s)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
		c.watcher.Heat()
		return false
	case n == 0 || errno != 0:
		c.close()
		return true
	}
	c.watcher.Heat()
	return true
}

// settled reports that a socket has nothing to be read and its peer has acknowledged all that was sent.
func settled(fd int) bool {
	for _, queue := range []uint{unix.TIOCINQ, unix.TIOCOUTQ} {
		if n, err := unix.IoctlGetInt(fd, queue); err != nil || n > 0 {
			return false
		}
	}
	return true
}

func isUnix(fd int) bool {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	_, ok := name.(*unix.SockaddrUnix)
	return ok
}
