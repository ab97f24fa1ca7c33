package nfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/simkit"
)

// simWire is a connection for calls that block: to the port mapper, MOUNT, the lock manager, and NFS while a file is opened. Whoever reads a reply parks until the scheduler
// chooses him, and then has his call executed himself.
type simWire struct {
	net.Conn // nil: what is not here is not used
	w        *simWorld
	t        *simkit.Thread
	port     int
	life     int // of the server
	ctx      context.Context
	cancel   context.CancelFunc
	deadline time.Time
	call     []byte // nil = it was executed
	in       []byte
	before   []byte // the last reply
}

// dial makes such a connection. Nothing of the world is touched before the scheduler has chosen: time may pass meanwhile.
func (w *simWorld) dial(ctx context.Context, port int) (net.Conn, error) {
	t := w.NewThread(fmt.Sprintf("wire%05d", w.wires.Add(1)))
	c := &simWire{w: w, t: t, port: port}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.travel(ctx); err != nil {
		return nil, err
	}
	if !w.up() || w.Now() < w.refusing {
		w.Log("%s: port %d: refused", t.Name, port)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	w.Log("%s: port %d: connected", t.Name, port)
	c.life = w.crashes
	return c, nil
}

// travel waits until something has come over the network.
func (c *simWire) travel(ctx context.Context) error {
	if !c.t.Park(ctx, 0) {
		return c.ended(ctx)
	}
	w := c.w
	for at := w.soon(); at > w.Now() || w.silent > w.Now(); {
		if !c.t.Park(ctx, max(at, w.silent)-w.Now()) {
			return c.ended(ctx)
		}
	}
	return nil
}

// ended is why a wait has.
func (c *simWire) ended(ctx context.Context) error {
	switch {
	case c.ctx.Err() != nil:
		return net.ErrClosed
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return os.ErrDeadlineExceeded
	}
	return ctx.Err()
}

func (c *simWire) broken() bool { return !c.w.up() || c.life != c.w.crashes }

// Write takes a call.
func (c *simWire) Write(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, net.ErrClosed
	}
	c.call = slices.Clone(p[wire.MarkBytes:])
	return len(p), nil
}

// Read has the call executed if it was not, and reads the reply.
func (c *simWire) Read(p []byte) (int, error) {
	for len(c.in) == 0 {
		ctx, cancel := context.WithDeadline(c.ctx, c.deadline)
		err := c.exchange(ctx)
		cancel()
		if err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *simWire) exchange(ctx context.Context) error {
	if c.call == nil { // no more comes
		<-ctx.Done()
		return c.ended(ctx)
	}
	if err := c.travel(ctx); err != nil {
		return err
	}
	if c.broken() {
		return io.EOF
	}
	reply, err := c.execute()
	c.call = nil
	if err != nil || reply == nil {
		return err
	}
	if err := c.travel(ctx); err != nil {
		return err
	}
	if c.broken() {
		return io.EOF
	}
	c.in = append(c.in, reply...)
	c.before = reply
	return nil
}

// simWireBads is what may happen to such a call. A reply that is nil does not come.
var simWireBads = []struct {
	name string
	do   func(c *simWire) (reply []byte, err error)
}{
	{"control: lost call", func(*simWire) ([]byte, error) { return nil, io.EOF }},
	{"control: lost reply", func(c *simWire) ([]byte, error) { c.plain(nfstest.Fault{}); return nil, io.EOF }},
	{"control: call passed over", func(*simWire) ([]byte, error) { return nil, nil }},
	{"control: no reply", func(c *simWire) ([]byte, error) { c.plain(nfstest.Fault{}); return nil, nil }},
	{"control: the last reply once more", func(c *simWire) ([]byte, error) {
		return append(slices.Clone(c.before), c.plain(nfstest.Fault{})...), nil
	}},
	{"control: garbage", func(c *simWire) ([]byte, error) {
		return c.plain(nfstest.Fault{Mangle: nfstest.GarbageAfterXID(c.w.rng.Uint64())}), nil
	}},
	{"control: refused by RPC", func(c *simWire) ([]byte, error) { return c.plain(nfstest.Fault{Accept: nfstest.SystemErr}), nil }},
	{"control: error", func(c *simWire) ([]byte, error) {
		if c.port == wire.PortPortmap {
			return c.plain(nfstest.Fault{}), nil // it has none
		}
		return c.plain(nfstest.Fault{Status: nfstest.LockFailed}), nil
	}},
	{"control: crash before", func(c *simWire) ([]byte, error) { c.w.crash(); return nil, io.EOF }},
	{"control: crash after", func(c *simWire) ([]byte, error) { c.plain(nfstest.Fault{}); c.w.crash(); return nil, io.EOF }},
}

func (c *simWire) plain(f nfstest.Fault) []byte { return c.w.server.ExecuteAt(c.port, c.call, f) }

// execute executes the call, and something may happen to it.
func (c *simWire) execute() (reply []byte, err error) {
	w := c.w
	if w.bads == 0 || w.rng.IntN(1000) >= w.faulty {
		w.Log("%s: execute", c.t.Name)
		return c.plain(nfstest.Fault{}), nil
	}
	bad := simWireBads[w.rng.IntN(len(simWireBads))]
	w.Log("%s: execute: %s", c.t.Name, bad.name)
	w.Count(bad.name)
	w.bads--
	return bad.do(c)
}

// SetDeadline is for the call that follows.
func (c *simWire) SetDeadline(at time.Time) error {
	c.deadline = at
	return nil
}

// Close has whoever waits wait no longer.
func (c *simWire) Close() error {
	c.cancel()
	return nil
}

// SyscallConn makes a socket of it that loops can wait for, which is broken if the server is no longer what it was.
func (c *simWire) SyscallConn() (syscall.RawConn, error) {
	w := c.w
	fd := w.newLink()
	if c.broken() {
		w.links[len(w.links)-1].shut()
	}
	return simSocket(fd), nil
}

// simSocket is a descriptor that is given away once.
type simSocket int

// Control implements syscall.RawConn.
func (s simSocket) Control(f func(fd uintptr)) error {
	f(uintptr(s))
	return unix.Close(int(s))
}

// Read implements syscall.RawConn, and is not used.
func (simSocket) Read(func(fd uintptr) bool) error { return syscall.ENOTSUP }

// Write implements syscall.RawConn, and is not used.
func (simSocket) Write(func(fd uintptr) bool) error { return syscall.ENOTSUP }

// RemoteAddr is somewhere.
func (c *simWire) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: c.port}
}
