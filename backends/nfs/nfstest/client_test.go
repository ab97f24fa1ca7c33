package nfstest

import (
	"net"
	"testing"
	"time"
)

// client is one connection that calls and looks at what comes back; it is for the tests of the server only.
type client struct {
	t      *testing.T
	prog   uint32
	socket net.Conn
	xid    uint32
}

func dial(t *testing.T, s *Server, prog uint32) *client {
	t.Helper()
	socket, err := net.Dial("tcp", s.endpoint(s.port(prog)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	_ = socket.SetDeadline(time.Now().Add(hangSeconds * time.Second))
	return &client{t: t, prog: prog, socket: socket}
}

// send sends a call as uid 0 and returns its xid.
func (c *client) send(proc uint32, args func(*writer)) uint32 {
	return c.sendAs(0, c.prog, versions[c.prog], proc, args)
}

func (c *client) sendAs(uid, prog, vers, proc uint32, args func(*writer)) uint32 {
	c.t.Helper()
	c.xid++
	var cred, w writer
	cred.u32(1)
	cred.text("machine")
	cred.u32(uid, uid, 0)
	w.u32(c.xid, 0, rpcVersion, prog, vers, proc, authSys)
	w.opaque(cred.bytes)
	w.u32(authNone, 0)
	if args != nil {
		args(&w)
	}
	if _, err := c.socket.Write(frame(w.bytes, 0)); err != nil {
		c.t.Fatal(err)
	}
	return c.xid
}

// receive is the next reply: its xid, how it fared, and its results.
func (c *client) receive() (xid uint32, stat AcceptStat, results *reader) {
	c.t.Helper()
	record, err := readRecord(c.socket)
	if err != nil {
		c.t.Fatal(err)
	}
	r := &reader{rest: record}
	xid = r.u32()
	if reply, state := r.u32(), r.u32(); reply != 1 || state != 0 {
		c.t.Fatalf("a reply of kind %d, state %d", reply, state)
	}
	r.u32()
	r.opaque(authBytesMax)
	return xid, AcceptStat(r.u32()), r
}

// call sends and receives; the status of NFS is taken off the results.
func (c *client) call(proc uint32, args func(*writer)) (Status, *reader) {
	c.t.Helper()
	sent := c.send(proc, args)
	xid, stat, r := c.receive()
	if xid != sent || stat != 0 {
		c.t.Fatalf("xid %d for %d, accept_stat %d", xid, sent, stat)
	}
	return Status(r.u32()), r
}

// ended waits for the end of the connection, and fails if a reply comes first.
func (c *client) ended() {
	c.t.Helper()
	if n, err := c.socket.Read(make([]byte, 1)); err == nil {
		c.t.Errorf("%d more bytes", n)
	}
}

// The numbers of the procedures that the tests call.
const (
	numberRead   = 6
	numberWrite  = 7
	numberCommit = 21
)

// disk is a client with the handle of /export/disk.img, which has 1 MiB.
type disk struct {
	*client
	handle []byte
}

const diskPath = "/export/disk.img"

func openDisk(t *testing.T, s *Server) disk {
	t.Helper()
	if !s.Exists(diskPath) {
		s.Put(diskPath, File{SizeBytes: 1 << 20})
	}
	c := dial(t, s, progMount)
	status, r := c.call(1, func(w *writer) { w.text("/export") })
	if status != OK {
		t.Fatal(status)
	}
	root := r.opaque(handleBytesMax)
	d := disk{client: dial(t, s, progNFS)}
	status, r = d.call(3, func(w *writer) {
		w.opaque(root)
		w.text("disk.img")
	})
	if status != OK {
		t.Fatal(status)
	}
	d.handle = r.opaque(handleBytesMax)
	return d
}

func (d disk) writeArgs(offset uint64, data string, how Stability) func(*writer) {
	return func(w *writer) {
		w.opaque(d.handle)
		w.u64(offset)
		w.u32(uint32(len(data)), uint32(how))
		w.text(data)
	}
}

func (d disk) readArgs(offset uint64, count uint32) func(*writer) {
	return func(w *writer) {
		w.opaque(d.handle)
		w.u64(offset)
		w.u32(count)
	}
}

func skipAttributes(r *reader) {
	if r.flag() {
		r.take(84)
	}
}

// write is how many bytes were written, how stable, and under which verifier.
func (d disk) write(offset uint64, data string, how Stability) (count uint32, committed Stability, verifier uint64) {
	d.t.Helper()
	status, r := d.call(numberWrite, d.writeArgs(offset, data, how))
	if status != OK {
		d.t.Fatal(status)
	}
	r.flag()
	skipAttributes(r)
	return r.u32(), Stability(r.u32()), r.u64()
}

func (d disk) commit(offset uint64, count uint32) (verifier uint64) {
	d.t.Helper()
	status, r := d.call(numberCommit, d.readArgs(offset, count))
	if status != OK {
		d.t.Fatal(status)
	}
	r.flag()
	skipAttributes(r)
	return r.u64()
}

func (d disk) read(offset uint64, count uint32) (data string, isEnd bool) {
	d.t.Helper()
	status, r := d.call(numberRead, d.readArgs(offset, count))
	if status != OK {
		d.t.Fatal(status)
	}
	skipAttributes(r)
	r.u32()
	isEnd = r.flag()
	return r.text(recordBytesMax), isEnd
}
