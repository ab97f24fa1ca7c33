package nbd

import "time"

// A client that holds memory which others wait for, and neither takes its replies nor completes its payload, is cut off
// after Limits.Stall. As long as nobody waits it may take all the time it wants.

// relieveEvery is how often a connection that waits for shared memory looks for stalled ones, and tries again.
const relieveEvery = time.Second

// awaitShared has c try again when b may have room for the n bytes that it refused.
func (c *Conn) awaitShared(b *budget, n int64, alone bool) {
	b.await(c, n, alone)
	c.server.relieve(c.limits.Stall)
	if c.retry == nil {
		c.retry = c.ctx.After(min(relieveEvery, c.limits.Stall), c.tryAgain)
	}
}

func (c *Conn) tryAgain() {
	c.retry = nil
	c.roomAgain()
}

// relieve has all connections look whether they stall, at most once in relieveEvery for all who ask.
func (s *Server) relieve(stall time.Duration) {
	now := time.Now().UnixNano()
	last := s.relieved.Load()
	if now-last < int64(min(relieveEvery, stall)) || !s.relieved.CompareAndSwap(last, now) {
		return
	}
	s.everyConnection((*Conn).cutIfStalled)
}

// cutIfStalled ends a connection that holds memory for a client which has done nothing about it for too long. On the
// loop.
func (c *Conn) cutIfStalled() {
	if c.closed || c.bytes <= reserveStep && !c.out.licensed || !c.out.blocked && c.large == nil {
		return
	}
	if c.ctx.Now()-c.progress >= c.limits.Stall {
		c.abort(CauseStalled)
	}
}
