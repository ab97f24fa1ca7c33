package control

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/backends/null"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/nbd"
	"nbd-dataplane/qmp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a Plane with all that it works on.
type house struct {
	t     testing.TB
	main  *blockcore.AioContext
	graph *blockcore.Graph
	plane *Plane
	dir   string
	quits atomic.Int32
}

// patience ends a test that hangs. Sections wait as long for what is in flight: a busy machine answers late, and who wants one to give up says when.
const patience = time.Minute

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t}
	var err error
	h.dir, err = os.MkdirTemp("", "ctl") // t.TempDir is too long for sockets
	require.NoError(t, err)
	h.main, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: "main-loop"})
	require.NoError(t, err)
	h.graph = blockcore.NewGraphWith(blockcore.GraphOptions{Main: h.main, OnEvent: func(e blockcore.Event) { h.plane.TellGraph(e) }})
	h.plane = New(Options{
		Graph: h.graph, Main: h.main, Drivers: testDrivers(), NewContext: blockcore.NewAioContext, NewServer: nbd.NewServer,
		Listen: h.listen, Quit: func() { h.quits.Add(1) }, DrainMax: patience, Version: "test",
		Security: func(r SecurityRequest) (Security, error) {
			return Security{Authorizer: nbd.AuthzSimple{Identity: r.ID}}, nil
		},
	})
	t.Cleanup(h.close)
	return h
}

// close takes the house down and looks for what is left.
func (h *house) close() {
	require.NoError(h.t, h.plane.Close())
	h.empty()
	require.Empty(h.t, h.plane.objects)
	h.main.Close()
	os.RemoveAll(h.dir)
}

// empty holds that nothing is remembered of nodes, exports and leases that are gone.
func (h *house) empty() {
	h.t.Helper()
	h.plane.mu.Lock()
	defer h.plane.mu.Unlock()
	require.Empty(h.t, h.graph.Nodes())
	require.Empty(h.t, h.graph.Roots())
	require.Empty(h.t, h.graph.Sections())
	require.Empty(h.t, h.plane.opened)
	require.Empty(h.t, h.plane.owned)
	require.Empty(h.t, h.plane.exports)
	require.Empty(h.t, h.plane.leases)
}

func (h *house) listen(a Address) (Listener, error) {
	path := filepath.Join(h.dir, filepath.Base(a.Path))
	l, err := net.Listen("unix", path)
	if err != nil {
		return Listener{}, err
	}
	return Listener{Listener: l, Close: func() { l.Close() }}, nil
}

// testDrivers are a disk that stores nothing, one that can be stopped, one that goes on top of another, and a filter.
func testDrivers() map[string]Driver {
	return map[string]Driver{
		"null-co": {Open: func(o *Opening) (blockcore.Driver, error) {
			var a struct {
				Size int64 `qmp:"size,optional"`
			}
			if err := o.Decode(&a); err != nil {
				return nil, err
			}
			return null.Open(null.Options{SizeBytes: a.Size}), nil
		}},
		"gate": {Open: func(o *Opening) (blockcore.Driver, error) {
			return &gate{Disk: null.Open(null.Options{SizeBytes: 1 << 20})}, o.Decode(&struct{}{})
		}},
		"overlay": {Open: func(o *Opening) (blockcore.Driver, error) {
			var a struct {
				MainOnly bool `qmp:"main-only,optional"`
			}
			err := o.Decode(&a)
			return blocktest.NewFake(blocktest.FakeOptions{Features: blockcore.Features{Backing: true, MainOnly: a.MainOnly}}), err
		}},
		"pass": {Open: openPass, Reopen: func(o *Opening) (any, error) { return nil, decodePass(o) }},
	}
}

type pass struct{ blockcore.Filter }

func decodePass(o *Opening) error {
	var a struct {
		File qmp.Value `qmp:"file"`
	}
	if err := o.Decode(&a); err != nil {
		return err
	}
	_, err := o.Child(blockcore.RoleFile, a.File)
	return err
}

func openPass(o *Opening) (blockcore.Driver, error) {
	if err := decodePass(o); err != nil {
		return nil, err
	}
	return &pass{}, nil
}

// gate is a disk whose reads, and whose end, wait while it is shut.
type gate struct {
	*null.Disk

	// Safe from anywhere.
	shut    atomic.Pointer[chan struct{}]
	reads   atomic.Int32
	flushes atomic.Int32
}

func (g *gate) close() (open func()) {
	c := make(chan struct{})
	g.shut.Store(&c)
	return func() {
		g.shut.Store(nil)
		close(c)
	}
}

func (g *gate) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	g.reads.Add(1)
	if c := g.shut.Load(); c != nil {
		return t.Block(func() error { <-*c; return nil })
	}
	return g.Disk.ReadAt(t, p, off)
}

func (g *gate) Close(t *blockcore.Task) error {
	if c := g.shut.Load(); c != nil {
		_ = t.Block(func() error { <-*c; return nil })
	}
	return g.Disk.Close(t)
}

// Forgets has changes flush it, unlike the null disk.
func (g *gate) Forgets() bool { return false }

func (g *gate) Flush(t *blockcore.Task) error {
	g.flushes.Add(1)
	return g.Disk.Flush(t)
}

func (h *house) gate(name string) *gate { return h.graph.Node(name).Driver().(*gate) }

// monitor connects a client.
func (h *house) monitor() *operator {
	h.t.Helper()
	ours, theirs := net.Pipe()
	go func() { _ = h.plane.Monitor().ServeConn(theirs, qmp.Monitor{}) }()
	c, err := qmp.NewClient(context.Background(), ours)
	require.NoError(h.t, err)
	h.t.Cleanup(func() { c.Close() })
	return &operator{h.t, c}
}

// operator is a client of a monitor.
type operator struct {
	t testing.TB
	*qmp.Client
}

// ask executes a command and returns what is returned.
func (o *operator) ask(command, arguments string) (result any, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var args any
	if arguments != "" {
		args = json.RawMessage(arguments)
	}
	err = o.Do(ctx, command, args, &result)
	return result, err
}

// must is ask for what has to succeed.
func (o *operator) must(command, arguments string) any {
	o.t.Helper()
	result, err := o.ask(command, arguments)
	require.NoError(o.t, err, "%s %s", command, arguments)
	return result
}

// refused is ask for what has to fail.
func (o *operator) refused(command, arguments, want string) error {
	o.t.Helper()
	_, err := o.ask(command, arguments)
	require.ErrorContains(o.t, err, want, "%s %s", command, arguments)
	return err
}

// await takes events until one of that name.
func (o *operator) await(name string) qmp.Event {
	o.t.Helper()
	limit := time.After(patience)
	for {
		select {
		case e, ok := <-o.Events():
			require.True(o.t, ok, "the connection ended before %s", name)
			if e.Name == name {
				return e
			}
		case <-limit:
			require.Fail(o.t, "no event", name)
		}
	}
}

// serve starts the NBD server with an export of a gate for each name.
func (h *house) serve(o *operator, names ...string) {
	h.t.Helper()
	o.must("nbd-server-start", `{"addr":{"type":"unix","data":{"path":"s"}}}`)
	for _, name := range names {
		o.must("blockdev-add", fmt.Sprintf(`{"driver":"gate","node-name":%q}`, name))
		o.must("block-export-add", fmt.Sprintf(`{"type":"nbd","id":%q,"node-name":%q}`, name, name))
	}
}

// client is an NBD client past its handshake.
type client struct {
	t    testing.TB
	conn net.Conn
}

func (h *house) client(export string) *client {
	h.t.Helper()
	c, err := h.tryClient(export)
	require.NoError(h.t, err)
	return c
}

func (h *house) tryClient(export string) (*client, error) {
	conn, err := net.Dial("unix", filepath.Join(h.dir, "s"))
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { conn.Close() })
	c, err := nbd.NewClient(conn)
	if err != nil {
		return nil, err
	}
	_, err = c.Go(export)
	return &client{h.t, conn}, err
}

const readBytes = 512

// send asks for the first bytes. NBD proto.md, "Request message".
func (c *client) send() {
	request := make([]byte, 28)
	binary.BigEndian.PutUint32(request, 0x25609513)
	binary.BigEndian.PutUint32(request[24:], readBytes)
	_, err := c.conn.Write(request)
	require.NoError(c.t, err)
}

// receive waits for the reply and holds that it is no error.
func (c *client) receive() {
	reply := make([]byte, 16+readBytes)
	_, err := io.ReadFull(c.conn, reply)
	require.NoError(c.t, err)
	require.Zero(c.t, binary.BigEndian.Uint32(reply[4:]))
}

// untilRefused asks until the answer is an error, and returns that.
func (c *client) untilRefused() uint32 {
	for {
		c.send()
		reply := make([]byte, 16)
		_, err := io.ReadFull(c.conn, reply)
		require.NoError(c.t, err)
		if code := binary.BigEndian.Uint32(reply[4:]); code != 0 {
			return code
		}
		_, err = io.ReadFull(c.conn, make([]byte, readBytes))
		require.NoError(c.t, err)
	}
}

// silent holds that nothing comes for a while.
func (c *client) silent() {
	c.t.Helper()
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err := c.conn.Read(make([]byte, 1))
	require.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
	require.NoError(c.t, c.conn.SetReadDeadline(time.Time{}))
}

func long(n int) string { return strings.Repeat("a", n) }
