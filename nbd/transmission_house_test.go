package nbd

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/membuf"
)

// engines are the ways in which a loop does its I/O; what they have to do with is tested on both.
var engines = []blockcore.EngineKind{blockcore.EngineURing, blockcore.EngineThreads}

func eachEngine(t *testing.T, test func(t *testing.T, engine blockcore.EngineKind)) {
	for _, engine := range engines {
		t.Run(engine.String(), func(t *testing.T) { test(t, engine) })
	}
}

// styles are the shapes of replies.
var styles = map[string]replyStyle{"simple": styleSimple, "structured": styleStructured, "extended": styleExtended}

func eachStyle(t *testing.T, test func(t *testing.T, style replyStyle)) {
	for name, style := range styles {
		t.Run(name, func(t *testing.T) { test(t, style) })
	}
}

// houseOptions describe a server for one test. The zero value is a writable export called "disk" of 1 MiB.
type houseOptions struct {
	engine  blockcore.EngineKind
	network string // "" = unix
	disk    blocktest.FakeOptions
	driver  blockcore.Driver // instead of a Fake
	export  ExportOptions    // Root and Writable are filled in
	locked  bool             // read-only export
	home    bool             // the graph has a main loop, which is not that of the node
	server  ServerOptions
}

// house is a server with one export on a disk that does as it is told, on memory of its own. When its test ends
// it proves that nothing was left behind: no request, no buffer, no reserved byte, no Task, no goroutine.
type house struct {
	t        testing.TB
	pool     *membuf.Pool
	ctx      *blockcore.AioContext
	others   []*blockcore.AioContext
	disk     *blocktest.Fake
	log      *blocktest.Log
	root     *blockcore.Root
	server   *Server
	export   *Export
	graph    *blockcore.Graph
	node     *blockcore.Node
	nodes    []*blockcore.Node          // besides
	fakes    map[string]*blocktest.Fake // of the exports that were added
	tls      *tls.Config                // for clients that want it; nil = the server is in clear
	listener net.Listener
	served   chan error
	stopped  bool
	dialed   uint64 // clients so far; the id of the last one's connection
	events   eventLog
}

func newHouse(t testing.TB, o houseOptions) *house {
	h := &house{t: t, fakes: map[string]*blocktest.Fake{}, pool: membuf.NewPool(16 << 20), log: &blocktest.Log{}, served: make(chan error, 1)}
	h.events.changed = make(chan struct{})
	before := goleak.IgnoreCurrent()
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "test", Engine: o.engine, Buffers: h.pool})
	require.NoError(t, err)
	h.ctx = ctx
	if o.disk.Log == nil {
		o.disk.Log = h.log
	}
	driver := o.driver
	if driver == nil {
		h.disk = blocktest.NewFake(o.disk)
		driver = h.disk
	}
	var main *blockcore.AioContext
	if o.home {
		main = h.another(o.engine)
	}
	graph := blockcore.NewGraphWith(blockcore.GraphOptions{Main: main})
	node, err := graph.AddNode(blockcore.NodeOptions{Name: "node", Context: ctx, Driver: driver})
	require.NoError(t, err)
	onEvent := o.server.OnEvent
	o.server.OnEvent = func(e Event) {
		h.events.add(e)
		if onEvent != nil {
			onEvent(e)
		}
	}
	h.server = NewServer(o.server)
	o.export.Node, o.export.Writable = node, !o.locked
	if o.export.Name == "" {
		o.export.Name = "disk"
	}
	h.export, err = h.server.AddExport(graph, o.export)
	require.NoError(t, err)
	h.root, h.graph, h.node = h.export.root, graph, node
	h.listen(o.network)
	go func() { h.served <- h.server.Serve(h.listener) }()
	t.Cleanup(func() {
		h.close()
		for _, n := range append(h.nodes, node) {
			require.NoError(t, graph.RemoveNode(n))
		}
		for _, c := range append(h.others, ctx) {
			c.Close()
		}
		require.NoError(t, h.pool.Close())
		goleak.VerifyNone(t, before)
	})
	return h
}

// another is one more loop of the house.
func (h *house) another(kind blockcore.EngineKind) *blockcore.AioContext {
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "other", Engine: kind, Buffers: h.pool})
	require.NoError(h.t, err)
	h.others = append(h.others, ctx)
	return ctx
}

// drain begins a section of the node, as an operation on it would.
func (h *house) drain() *blockcore.Drained {
	h.t.Helper()
	d, err := h.graph.Drain(h.t.Context(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{h.export.root.Node()}, Max: patience})
	require.NoError(h.t, err)
	return d
}

func (h *house) listen(network string) {
	address := "127.0.0.1:0"
	if network == "" {
		network, address = "unix", socketPath(h.t)
	}
	l, err := net.Listen(network, address)
	require.NoError(h.t, err)
	h.listener = l
}

// socketPath is where a server may listen for as long as a test lasts. t.TempDir's name is built of the test's, and may leave no room in the 107 bytes of a unix socket's
// address.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// dial returns a client in the transmission phase, on both sides.
func (h *house) dial(o dialOptions) *wireClient {
	h.t.Helper()
	w := h.knock(o)
	h.dialed++
	h.until("the connection is on the loop", func() bool { c := h.conn(h.dialed); return c != nil && c.watcher != nil })
	return w
}

// knock returns a client whose handshake is over.
func (h *house) knock(o dialOptions) *wireClient {
	h.t.Helper()
	w, err := h.negotiate(o)
	require.NoError(h.t, err)
	return w
}

// negotiate is knock for any goroutine.
func (h *house) negotiate(o dialOptions) (*wireClient, error) {
	if o.export == "" {
		o.export = h.export.Name()
	}
	conn, err := net.Dial(h.listener.Addr().Network(), h.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { conn.Close() })
	w, err := negotiate(conn, o)
	if err == nil {
		w.t = h.t
	}
	return w, err
}

// came waits until that connection is known to its export, though the loop may not know it yet.
func (h *house) came(id uint64) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return h.conn(id) != nil }, patience, time.Millisecond)
}

// stop stops the server in order.
func (h *house) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h.stopped = true
	return h.server.Stop(ctx)
}

// close stops the server and checks that all counts are back at zero.
func (h *house) close() {
	if !h.stopped {
		require.NoError(h.t, h.stop())
	}
	require.NoError(h.t, <-h.served)
	require.Zero(h.t, h.root.InFlight(), "requests in flight")
	require.Zero(h.t, h.server.budget.used.Load(), "bytes reserved of the process")
	require.Zero(h.t, h.export.budget.used.Load(), "bytes reserved of the export")
	if h.disk != nil {
		require.Zero(h.t, h.disk.Active(), "requests in the disk")
	}
	h.export.mu.Lock()
	defer h.export.mu.Unlock()
	require.Empty(h.t, h.export.conns)
}

// onLoop runs fn on the loop that the export is on and waits for it.
func (h *house) onLoop(fn func()) {
	h.t.Helper()
	require.NoError(h.t, h.export.ctx.Load().Do(func(*blockcore.Task) error { fn(); return nil }))
}

// conn returns the only connection there is, or the one with the id.
func (h *house) conn(id uint64) *Conn {
	h.export.mu.Lock()
	defer h.export.mu.Unlock()
	for c := range h.export.conns {
		if id == 0 || c.id == id {
			return c
		}
	}
	return nil
}

// until waits until cond, asked on the loop, holds.
func (h *house) until(what string, cond func() bool) {
	h.t.Helper()
	held := false
	deadline := time.Now().Add(patience)
	for !held {
		h.onLoop(func() { held = cond() })
		require.True(h.t, held || time.Now().Before(deadline), "waited in vain: %s", what)
	}
}

// closed waits for the end of a connection.
func (h *house) closed() ConnectionClosed {
	h.t.Helper()
	return h.events.await(h.t, func(e Event) bool { _, ok := e.(ConnectionClosed); return ok }).(ConnectionClosed)
}

// eventLog keeps the events of a server.
type eventLog struct {
	mu      sync.Mutex
	all     []Event
	taken   int // of all, by await
	changed chan struct{}
}

func (l *eventLog) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

// await returns the first event that matches among those that no await has passed.
func (l *eventLog) await(t testing.TB, match func(Event) bool) Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		e, changed := l.take(match)
		if e != nil {
			return e
		}
		select {
		case <-changed:
		case <-timeout:
			require.Fail(t, "no such event")
		}
	}
}

func (l *eventLog) take(match func(Event) bool) (Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.taken < len(l.all) {
		e := l.all[l.taken]
		l.taken++
		if match(e) {
			return e, nil
		}
	}
	return nil, l.changed
}

// serverCredentials are TLS configurations of a server and of a client that trusts it.
func serverCredentials(t testing.TB) (server *TLSCredentials, client *tls.Config) {
	a := newAuthority(t)
	return serverTLS(t, a, false), clientTLS(t, a, "")
}
