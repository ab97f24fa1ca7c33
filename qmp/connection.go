package qmp

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Connection is one monitor, from its greeting to its end.
type Connection struct {
	// Immutable.
	server   *Server
	id       uint64
	since    time.Time
	conn     io.ReadWriteCloser
	ctx      context.Context
	cancel   context.CancelFunc // safe from anywhere, as giveUp, queue and out are
	commands context.Context    // of the commands that run; ends with ctx, or before
	giveUp   context.CancelFunc // ends it
	queue    *queue
	out      *outbox

	// Safe from anywhere.
	negotiated atomic.Bool // set by the negotiation, the only command before it
	oob        atomic.Bool // the client has asked for exec-oob
	saidQuit   atomic.Bool // the client has ended the program, and knows it

	mu sync.Mutex
	// Guarded by mu.
	onClose []*func()
	closed  bool
}

func newConnection(s *Server, id uint64, conn io.ReadWriteCloser, monitor Monitor) *Connection {
	layout := plainStyle
	if monitor.Pretty {
		layout = prettyStyle
	}
	c := &Connection{server: s, id: id, since: time.Now(), conn: conn, queue: newQueue(), out: newOutbox(layout)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.commands, c.giveUp = context.WithCancel(c.ctx)
	return c
}

// ID tells connections of one server apart.
func (c *Connection) ID() uint64 { return c.id }

// Context ends when the client has gone or the server is being closed.
func (c *Connection) Context() context.Context { return c.ctx }

// LostEvents is how many events were dropped because the client did not read.
func (c *Connection) LostEvents() uint64 { return c.out.lostCount() }

// OnClose has f called once when the connection has ended and its last command has returned; at once if that is so
// already. What a client holds for as long as it is connected is let go here. The last one registered is called first. Who has let go
// otherwise has f forgotten.
func (c *Connection) OnClose(f func()) (forget func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.onClose = append(c.onClose, &f)
	}
	c.mu.Unlock()
	if closed {
		f()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.onClose = slices.DeleteFunc(c.onClose, func(other *func()) bool { return other == &f })
	}
}

// Close ends the connection as if its client had gone. It does not wait.
func (c *Connection) Close() { c.stop() }

// serve is the life of a connection. It returns when the last command has returned, its answer has left or cannot leave, and the
// reader and the writer have ended, as those of a net.Conn do when it is closed. Reading from a terminal or a pipe may go on.
func (c *Connection) serve() {
	readerDone, writerDone := make(chan struct{}), make(chan struct{})
	c.out.respond(c.server.greeting())
	go c.writeLoop(writerDone)
	go c.readLoop(readerDone)
	c.commandLoop()
	c.stop()
	for _, f := range slices.Backward(c.takeOnClose()) {
		(*f)()
	}
	c.out.end()
	c.flush(writerDone)
	if c.saidQuit.Load() {
		c.letHangUp(readerDone)
	}
	c.conn.Close()
	if _, ok := c.conn.(net.Conn); ok {
		<-readerDone
		<-writerDone
	}
	c.server.leave(c)
}

// flush waits for the last answers to leave, for a while.
func (c *Connection) flush(writerDone <-chan struct{}) {
	enough := time.NewTimer(flushMax)
	defer enough.Stop()
	select {
	case <-writerDone:
	case <-enough.C:
		c.out.fail()
	}
}

// letHangUp lets the client be the first to close, if it is quick. QEMU's own looks at its connection once more after quit, and takes an end of file
// there for a failure.
func (c *Connection) letHangUp(readerDone <-chan struct{}) {
	enough := time.NewTimer(hangUpMax)
	defer enough.Stop()
	select {
	case <-readerDone:
	case <-enough.C:
	}
}

func (c *Connection) takeOnClose() (all []*func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	all, c.onClose = c.onClose, nil
	return all
}

// stop has the connection end: no further command is begun, and the one that runs is told to give up. It does not wait.
func (c *Connection) stop() {
	c.queue.drop() // or what is behind the one that runs might begin when that gives up
	c.cancel()
	c.out.hurry()
}

// commandLoop runs commands one after the other until none will come.
func (c *Connection) commandLoop() {
	for {
		r, ok := c.queue.pop()
		if !ok {
			return
		}
		c.server.run(c, r)
	}
}

// readLoop reads until the input ends or the connection is to end.
func (c *Connection) readLoop(done chan<- struct{}) {
	defer close(done)
	s := &stream{emit: c.accept}
	buffer := make([]byte, keepBytes)
	for c.ctx.Err() == nil {
		n, err := c.conn.Read(buffer)
		s.feed(buffer[:n])
		if err != nil {
			c.inputEnded(err)
		}
	}
}

// inputEnded returns when the connection is to end: after what was sent before has been done, if the client may still be
// there to read about it.
func (c *Connection) inputEnded(err error) {
	if errors.Is(err, io.EOF) {
		c.queue.close()
		gone := time.NewTimer(goneAfter)
		defer gone.Stop()
		select {
		case <-c.ctx.Done():
		case <-gone.C:
		}
	}
	c.stop()
}

// accept takes what the client has sent. Ordinary commands wait in the queue; those out of band are run here, and so are all before
// the negotiation is over, because what follows it is understood by what was negotiated.
func (c *Connection) accept(n node, err error) {
	r := request{err: err, weight: nodeBytes}
	if err == nil {
		r = requestOf(n, c.oob.Load())
	}
	switch {
	case c.ctx.Err() != nil: // nothing more is begun
	case !c.negotiated.Load(), r.oob && r.err == nil:
		c.server.run(c, r)
	default:
		c.queue.push(r)
	}
}

// negotiate is all that a client can do at first.
func (c *Connection) negotiate(r request) (any, error) {
	if r.name != negotiate {
		return nil, &Error{CommandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'"}
	}
	var wanted negotiation
	if err := r.arguments.Decode(&wanted); err != nil {
		return nil, err
	}
	c.oob.Store(slices.Contains(wanted.Enable, capabilityOOB))
	c.negotiated.Store(true)
	return nil, nil
}

// writeLoop sends what is in the outbox until it has ended or the client takes nothing any more.
func (c *Connection) writeLoop(done chan<- struct{}) {
	defer close(done)
	for {
		text := c.out.take()
		if text == nil {
			return
		}
		if _, err := c.conn.Write(text); err != nil {
			c.out.fail()
			c.stop()
			return
		}
	}
}
