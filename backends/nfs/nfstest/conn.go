package nfstest

import (
	"bufio"
	"net"
	"sync"
	"time"
)

// conn is one connection of a client to one of the services.
type conn struct {
	// Immutable.
	server *Server
	prog   uint32
	number int // counted from one
	life   int // how many crashes there had been
	socket *net.TCPConn
	gone   chan struct{} // closed with the connection
	inbox  chan []byte   // calls that wait to be executed; closed by readLoop

	// Guarded by mu.
	mu     sync.Mutex
	more   *sync.Cond
	queue  []outgoing
	behind []waiting
	closed bool
}

// outgoing is bytes to send. Endless ones are sent until the connection is closed.
type outgoing struct {
	bytes     []byte
	endless   bool
	thenClose bool
	reset     bool
}

// waiting is a reply that others overtake.
type waiting struct {
	left  int
	reply outgoing
}

func newConn(s *Server, prog uint32, socket *net.TCPConn, number int) *conn {
	c := &conn{server: s, prog: prog, number: number, life: s.crashes, socket: socket, gone: make(chan struct{}), inbox: make(chan []byte, inboxMax)}
	c.more = sync.NewCond(&c.mu)
	return c
}

// close may be called from anywhere, and does not wait.
func (c *conn) close(reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	close(c.gone)
	if reset {
		_ = c.socket.SetLinger(0) // the close sends a reset then
	}
	c.socket.Close()
	c.more.Broadcast()
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// readLoop takes calls off the socket. It goes on while the server is silent, so that a connection that the client closes
// is closed here too.
func (c *conn) readLoop() {
	defer c.server.done.Done()
	defer close(c.inbox)
	from := bufio.NewReaderSize(c.socket, 64<<10)
	for {
		record, err := readRecord(from)
		if err != nil {
			break
		}
		select {
		case c.inbox <- record:
		case <-c.gone:
		}
	}
	c.close(false)
	c.server.forget(c)
}

// executeLoop executes calls one after the other, in the order in which they came.
func (c *conn) executeLoop() {
	defer c.server.done.Done()
	for record := range c.inbox {
		c.server.quiet.pass()
		if c.isClosed() && !c.server.options.LateExecution || !c.handle(record) {
			break
		}
	}
	c.close(false)
	for range c.inbox {
		continue // so that readLoop ends
	}
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.changed.Broadcast()
}

// handle does all that is to be done with a call. False is the end of the connection.
func (c *conn) handle(record []byte) bool {
	args := &reader{rest: record}
	h, err := readHeader(args)
	if err != nil {
		c.server.t.Errorf("nfstest: a call whose header does not make sense: % x", record[:min(len(record), 200)])
		return false
	}
	call, f := c.server.admit(c, h, args)
	if f.Before != nil {
		f.Before()
	}
	if f.Drop == BeforeExecuting {
		c.close(f.Reset)
		return false
	}
	reply := c.server.answer(c, h, call, args, f)
	if f.After != nil {
		f.After()
	}
	if f.Drop == AfterExecuting {
		c.close(f.Reset)
		return false
	}
	if reply != nil && !f.NoReply {
		c.dispatch(reply, f)
	}
	return true
}

// dispatch gives the reply its form, and says when it goes.
func (c *conn) dispatch(message []byte, f Fault) {
	out := form(message, f)
	for range 1 + f.Again {
		switch {
		case f.Hold != nil:
			c.server.done.Add(1)
			go c.holdLoop(out, f.Hold)
		case f.Delay > 0:
			time.AfterFunc(f.Delay, func() { c.send(out) })
		case f.Behind > 0:
			c.keepBehind(waiting{f.Behind, out})
		default:
			c.send(out)
		}
	}
}

// holdLoop is one wait: for the test to let go, or the connection.
func (c *conn) holdLoop(out outgoing, hold <-chan struct{}) {
	defer c.server.done.Done()
	select {
	case <-hold:
		c.send(out)
	case <-c.gone:
	}
}

func form(message []byte, f Fault) outgoing {
	message[0] ^= byte(f.FlipXID >> 24)
	message[1] ^= byte(f.FlipXID >> 16)
	message[2] ^= byte(f.FlipXID >> 8)
	message[3] ^= byte(f.FlipXID)
	if f.CutTo > 0 {
		message = message[:min(len(message), f.CutTo)]
	}
	if f.Endless {
		return outgoing{bytes: append([]byte{0, byte(f.FragmentBytes >> 16), byte(f.FragmentBytes >> 8), byte(f.FragmentBytes)},
			make([]byte, f.FragmentBytes)...), endless: true}
	}
	framed := frame(message, f.FragmentBytes)
	if f.Mangle != nil {
		framed = f.Mangle(framed)
	}
	if f.Drop == AmidReply {
		return outgoing{bytes: framed[:len(framed)/2], thenClose: true, reset: f.Reset}
	}
	return outgoing{bytes: framed}
}

func (c *conn) keepBehind(w waiting) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = append(c.behind, w)
}

// send queues a reply, and those that waited for just so many replies.
func (c *conn) send(out outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, out)
	kept := c.behind[:0]
	for _, w := range c.behind {
		w.left--
		if w.left <= 0 {
			c.queue = append(c.queue, w.reply)
		} else {
			kept = append(kept, w)
		}
	}
	c.behind = kept
	c.more.Broadcast()
}

func (c *conn) writeLoop() {
	defer c.server.done.Done()
	for {
		out, ok := c.next()
		if !ok {
			return
		}
		err := c.write(out)
		if err != nil || out.thenClose {
			c.close(out.reset)
			return
		}
	}
}

func (c *conn) next() (outgoing, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == 0 && !c.closed {
		c.more.Wait()
	}
	if c.closed {
		return outgoing{}, false
	}
	out := c.queue[0]
	c.queue = c.queue[1:]
	return out, true
}

func (c *conn) write(out outgoing) error {
	for {
		if _, err := c.socket.Write(out.bytes); err != nil || !out.endless {
			return err
		}
	}
}
