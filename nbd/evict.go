package nbd

import "golang.org/x/sys/unix"

// A client is cut off by force at once, in both directions, whatever its requests wait for: a section that holds them back, the limits of a
// throttle group, a disk that does not answer, even one that has stopped the whole loop. What the block layer has begun goes on, since nobody
// can take a write back from a disk; its reply is dropped, and the connection is listed as leaving until then. What has not begun is dropped
// and never executed: a request that was not parsed, a write whose payload is not complete, a request that waits for the limits of its export. QEMU
// does the same: it shuts the socket down, finishes requests that it has handed to a block driver, and drops the others. Somebody who throws clients out, or
// stops their export, has decided that nobody waits for an answer: what the block layer can end before the storage answers ends then.
//
//	evict       anywhere: mark, shut the socket down
//	abort       on the loop: drop what has not begun and what was not sent, wait for what has

// evict cuts the client off. e is its export, or was. It does not wait. Safe from anywhere.
func (c *Conn) evict(e *Export, why Cause) {
	c.cut(why)
	e.post(func() { c.abort(why) })
}

// cut shuts the socket down, once. Safe from anywhere.
func (c *Conn) cut(why Cause) {
	if !c.evicted.CompareAndSwap(0, uint32(why)) {
		return
	}
	if c.pump != nil {
		c.pump.finish(0, 0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fdClosed {
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // it may be down already
	}
}

// evictedFor returns why the client was cut off, and whether it was. Safe from anywhere.
func (c *Conn) evictedFor() (Cause, bool) {
	why := Cause(c.evicted.Load())
	return why, why != 0 // which is CauseDisconnect, the client's own wish
}

// abort ends the connection now; replies are dropped. On the loop.
func (c *Conn) abort(cause Cause) {
	c.endInput(cause, nil)
	c.cut(cause)
	if c.closed {
		return
	}
	if first, was := c.evictedFor(); was {
		cause = first // who was thrown out was so before the export went
	}
	c.cause = cause // the end of the input is not what ended the connection
	c.lose(nil)
	c.export.root.Dismiss(c)
	if cause == CauseStopped || cause == CauseDisconnected {
		c.export.root.Cancel(c)
	}
	if c.watcher != nil {
		c.watcher.Cool()
		c.maybeClose()
	}
}

// closeSocket gives the descriptor back. On the loop.
func (c *Conn) closeSocket() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fdClosed = true
	unix.Close(c.fd)
}
