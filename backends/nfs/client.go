package nfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
)

// Limits of what is done off the loop, each with its reason.
const (
	// connectMax: a server that is there answers a SYN within seconds; the kernel repeats it after 1, 3 and 7.
	connectMax = 10 * time.Second
	// answerMax is how long one call of the control procedures may take. A COMMIT may take as long as the disk of the server needs (walker.settle).
	answerMax = 15 * time.Second
	// recordBytesMaxControl bounds a reply of the control procedures.
	recordBytesMaxControl = 64 << 10
	// fragmentsMax bounds the fragments of a record: real servers send one or a few.
	fragmentsMax = 1024
	// portTries is how many ports below 1024 are tried before one above will have to do.
	portTries = 4
)

// dialer knows how to reach a server. It blocks, and is used off the loop.
type dialer struct {
	// Immutable.
	host               string
	nfsPort, mountPort int
	synCount           int
	cred               []byte
	simulated          func() func(context.Context) (fd int, err error)      // the way to a server that is simulated; nil = it is a real one
	simulatedDial      func(ctx context.Context, port int) (net.Conn, error) // the same, where calls are made that block

	// Safe from anywhere.
	lastPort atomic.Int32 // of the NFS program, when it was last reached; 0 = never
}

func newDialer(o *Options) *dialer {
	return &dialer{host: o.Host, nfsPort: o.NFSPort, mountPort: o.MountPort, synCount: o.SynCount, cred: o.credential()}
}

// connect makes a connection to a port, from a port below 1024 if that can be had: many exports want it, as a sign that root has sent the call.
func (d *dialer) connect(ctx context.Context, port int) (net.Conn, error) {
	if d.simulatedDial != nil {
		return d.simulatedDial(ctx, port)
	}
	ctx, cancel := context.WithTimeout(ctx, connectMax)
	defer cancel()
	nd := net.Dialer{Control: d.prepare, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 10 * time.Second, Count: 3}}
	at := net.JoinHostPort(d.host, strconv.Itoa(port))
	for range portTries {
		nd.LocalAddr = &net.TCPAddr{Port: 600 + rand.IntN(424)}
		conn, err := nd.DialContext(ctx, "tcp", at)
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, unix.EACCES) || !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EADDRNOTAVAIL) {
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				break
			}
			return nil, err
		}
	}
	nd.LocalAddr = nil
	return nd.DialContext(ctx, "tcp", at)
}

// prepare sets what has to be set before the connection is made.
func (d *dialer) prepare(_, _ string, raw syscall.RawConn) error {
	if d.synCount == 0 {
		return nil
	}
	var errSet error
	err := raw.Control(func(fd uintptr) {
		errSet = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_SYNCNT, d.synCount)
	})
	return errors.Join(err, errSet)
}

// connectNFS connects to the NFS program: where the options say, or where it was before, or else where the port mapper says, or, without one,
// where it usually is.
func (d *dialer) connectNFS(ctx context.Context) (net.Conn, error) {
	if d.nfsPort != 0 {
		return d.connect(ctx, d.nfsPort)
	}
	last := int(d.lastPort.Load())
	if last != 0 {
		if conn, err := d.connect(ctx, last); err == nil || ctx.Err() != nil {
			return conn, err
		}
	}
	port, err := d.port(ctx, wire.ProgramNFS)
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	if err != nil {
		port = cmp.Or(last, wire.PortNFS)
	}
	conn, err := d.connect(ctx, port)
	if err == nil {
		d.lastPort.Store(int32(port))
	}
	return conn, err
}

// connectMount connects to the MOUNT program.
func (d *dialer) connectMount(ctx context.Context) (net.Conn, error) {
	port := d.mountPort
	if port == 0 {
		var err error
		if port, err = d.port(ctx, wire.ProgramMount); err != nil {
			return nil, fmt.Errorf("ask the port mapper for the MOUNT program: %w", err)
		}
	}
	return d.connect(ctx, port)
}

// client makes calls one after the other and waits for each. It is for what is done off the loop.
type client struct {
	conn     net.Conn
	cred     []byte
	xid      uint32
	patience time.Duration // how long a call may take
	stop     func() bool   // ends the watch over ctx
}

// newClient takes a connection over, which it closes early when ctx ends.
func newClient(ctx context.Context, conn net.Conn, cred []byte) *client {
	return &client{conn: conn, cred: cred, xid: rand.Uint32(), patience: answerMax, stop: context.AfterFunc(ctx, func() { conn.Close() })}
}

func (c *client) close() {
	c.stop()
	c.conn.Close()
}

// call makes one call and returns its results.
func (c *client) call(p wire.Program, proc uint32, args []byte) ([]byte, error) {
	c.xid++
	b := append(wire.AppendCall(nil, c.xid, p, proc, c.cred), args...)
	wire.FinishCall(b, 0)
	if err := c.conn.SetDeadline(time.Now().Add(c.patience)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(b); err != nil {
		return nil, err
	}
	for {
		record, err := readRecord(c.conn)
		if err != nil {
			return nil, err
		}
		h, need, err := wire.ParseHead(record)
		switch {
		case err != nil:
			return nil, err
		case need > 0:
			return nil, wire.ErrMalformed
		case h.XID != c.xid: // of nobody's call: the next one may be ours
		case h.Err != nil:
			return nil, h.Err
		default:
			return record[h.Bytes:], nil
		}
	}
}

// readRecord reads a whole record.
func readRecord(r io.Reader) ([]byte, error) {
	var record []byte
	for range fragmentsMax {
		var mark [wire.MarkBytes]byte
		if _, err := io.ReadFull(r, mark[:]); err != nil {
			return nil, err
		}
		n, last := wire.Mark(mark[:])
		if len(record)+n > recordBytesMaxControl {
			return nil, fmt.Errorf("reply of %d bytes and more: %w", len(record)+n, wire.ErrMalformed)
		}
		from := len(record)
		record = append(record, make([]byte, n)...)
		if _, err := io.ReadFull(r, record[from:]); err != nil {
			return nil, err
		}
		if last {
			return record, nil
		}
	}
	return nil, fmt.Errorf("reply in more than %d fragments: %w", fragmentsMax, wire.ErrMalformed)
}

// jukeboxPause is how long a call waits that a server has no time for.
const jukeboxPause = 200 * time.Millisecond

// nfs makes a call of the NFS program, again while the server asks for time. parse reads the results.
func (c *client) nfs(ctx context.Context, proc wire.Proc, args []byte, parse func([]byte) error) error {
	for {
		b, err := c.call(wire.ProgramNFS, uint32(proc), args)
		if err == nil {
			err = parse(b)
		}
		var status *wire.StatusError
		if !errors.As(err, &status) || status.Status != wire.StatusJukebox {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(jukeboxPause):
		}
	}
}

// take gives the socket away: as a file descriptor in non-blocking mode that no goroutine waits for. The client is closed.
func (c *client) take() (fd int, err error) {
	defer c.close()
	return duplicate(c.conn)
}

// duplicate returns another descriptor of the socket under conn.
func duplicate(conn net.Conn) (int, error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, errDup := -1, error(nil)
	err = raw.Control(func(own uintptr) { fd, errDup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, errDup)
}
