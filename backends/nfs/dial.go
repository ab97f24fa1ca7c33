package nfs

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
)

// attempt is one attempt to connect. It is made by a goroutine of its own, since it looks up names and asks the port mapper, and may take long.
type attempt struct {
	// Immutable.
	conn   *conn
	ctx    *blockcore.AioContext
	cancel context.CancelFunc
	reach  func(context.Context) (fd int, err error)

	// Owned by the context.
	abandoned bool // nobody wants the socket any more; conn may be on another loop
}

// dialSoon begins an attempt, unless one is under way or planned.
func (c *conn) dialSoon() {
	if c.attempt != nil || c.retry != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), openMax)
	c.attempt = &attempt{conn: c, ctx: c.f.ctx, cancel: cancel, reach: c.f.dialer.way()}
	c.f.dialing.Add(1)
	go c.attempt.dialLoop(ctx, c.f)
}

// dialLoop connects, and gives the socket to the loop that has asked for it.
func (a *attempt) dialLoop(ctx context.Context, f *File) {
	defer f.dialing.Done()
	defer a.cancel()
	fd, err := a.reach(ctx)
	if err == nil {
		fd, err = f.confirmed(ctx, fd)
	}
	if !a.ctx.Post(func() { a.done(fd, err) }) && fd >= 0 {
		unix.Close(fd)
	}
}

// way is how an attempt reaches the server.
func (d *dialer) way() func(context.Context) (fd int, err error) {
	if d.simulated != nil {
		return d.simulated()
	}
	return d.socket
}

// socket makes a connection to the NFS program that no goroutine waits for.
func (d *dialer) socket(ctx context.Context) (fd int, err error) {
	conn, err := d.connectNFS(ctx)
	if err != nil {
		return -1, err
	}
	return newClient(ctx, conn, nil).take()
}

// done takes the result. On the loop.
func (a *attempt) done(fd int, err error) {
	c := a.conn
	switch {
	case a.abandoned:
		if fd >= 0 {
			unix.Close(fd)
		}
		return
	case err != nil:
		c.attempt = nil
		if c.outstanding > 0 { // else it was to be one more
			c.f.trouble(fmt.Errorf("connect: %w", err))
		}
		if isStale(err) {
			c.failAll(err)
		}
		c.later()
		return
	}
	c.attempt = nil
	c.f.noticeLoss()
	c.f.counters.connects.Add(1)
	c.connected(fd)
}

// failAll ends all calls that c has, while it is not connected. The server is there, and who asks again wants to be told soon. A probe asks for nothing but
// what is known now, and goes on.
func (c *conn) failAll(err error) {
	for _, k := range c.f.calls.all {
		if k.state != callFree && k.conn == c && k.proc != wire.ProcNull {
			c.backoff = 0
			c.f.finish(k, err)
		}
	}
}

// later makes another attempt after a while, longer each time, if there is still something to send then.
func (c *conn) later() {
	wait := max(c.backoff, backoffLeast)
	c.backoff = min(2*wait, backoffMost)
	c.retry = c.f.ctx.After(wait, func() {
		c.retry = nil
		if c.outstanding > 0 {
			c.dialSoon()
		}
	})
}

// leave ends what is under way on the loop that c is on; its socket stays.
func (c *conn) leave() {
	if c.attempt != nil {
		c.attempt.abandoned = true
		c.attempt.cancel()
		c.attempt = nil
	}
	if c.retry != nil {
		c.retry.Stop()
		c.retry = nil
	}
	c.ungather()
	c.gatherer = gatherer{} // its timer is of this loop
	if c.watcher != nil {
		c.watcher.Close()
		c.watcher = nil
	}
	c.blocked = false
	if c.queued && c.f.ctx.NotAtTurnEnd(c) {
		c.queued = false
	}
}

// arrive takes up what leave has left, on another loop.
func (c *conn) arrive() {
	if c.fd >= 0 && c.watcher == nil {
		c.watcher = c.f.ctx.Watch(c.fd, c)
	}
}
