package nbd

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// gap is a move of the export that has left its loop and not come to the next one. It is the owner of another Root of the node
// and holds the move up when its turn to leave comes, which is after the export's.
type gap struct {
	h       *house
	entered chan struct{}
	let     chan struct{}
	moved   chan error
}

func (g *gap) Quiesce()                            {}
func (g *gap) Busy() bool                          { return false }
func (g *gap) Resume()                             {}
func (g *gap) MayMove(*blockcore.AioContext) error { return nil }
func (g *gap) Detach(*blockcore.AioContext)        { close(g.entered); <-g.let }
func (g *gap) Attach(*blockcore.AioContext)        {}

// enterGap begins a move and stops it halfway.
func (h *house) enterGap(engine blockcore.EngineKind) *gap {
	h.t.Helper()
	g := &gap{h: h, entered: make(chan struct{}), let: make(chan struct{}), moved: make(chan error, 1)}
	root, err := h.graph.NewRoot(h.node, blockcore.RootOptions{Name: "gap", Owner: g})
	require.NoError(h.t, err)
	h.t.Cleanup(root.Close)
	to := h.another(engine)
	go func() { g.moved <- h.graph.Move(context.Background(), h.node, to) }()
	<-g.entered
	require.Same(h.t, to, h.export.ctx.Load())
	return g
}

// settle waits until the new loop has done what it was asked for so far.
func (g *gap) settle() { g.h.onLoop(func() {}) }

// leave lets the move go on to its end.
func (g *gap) leave() {
	g.h.t.Helper()
	g.settle()
	close(g.let)
	require.NoError(g.h.t, <-g.moved)
}

// Goal: what is wanted of an export while it is between two loops is done once it has arrived, and touches nothing before. Method: each
// request of the outside is made, and comes to the new loop, before the old one has let all go, on each engine; connections lie there idle,
// with a long payload half received, with replies that nobody takes, and waiting for memory.
func TestBetweenTwoLoops(t *testing.T) {
	for name, act := range map[string]func(h *house){
		"nothing":    func(*house) {},
		"disconnect": func(h *house) { forEach(h, func(id uint64) { require.NoError(h.t, h.server.Disconnect(id)) }) },
		"stop":       func(h *house) { forEach(h, func(id uint64) { h.export.post(h.conn(id).stop) }) },
		"cut":        func(h *house) { forEach(h, func(id uint64) { h.export.post(h.conn(id).cutIfStalled) }) },
		"memory":     func(h *house) { h.export.budget.wakeAll() },
		"ask":        func(h *house) { require.Len(h.t, h.server.Connections(), 4) },
	} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
				h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{ExportBytes: 2 * mib, Stall: patience}}})
				idle, long, lazy, poor := h.dial(dialOptions{}), h.dial(dialOptions{}), h.dial(dialOptions{}), h.dial(dialOptions{})
				payload := fill(3, 600_000)
				request, cookie := long.request(CmdWrite, 0, 0, 0, payload)
				long.send(request[:100_000])
				h.narrow(3)
				h.narrow(4)
				lazy.post(CmdRead, 0, 0, mib, nil)
				h.until("the socket is full", func() bool { c := h.conn(3); return c.out.blocked && h.conn(2).large != nil })
				poor.post(CmdRead, 0, 0, mib, nil)
				second := poor.post(CmdRead, 0, 0, mib, nil)
				h.until("one waits for memory", func() bool { c := h.conn(4); return c.blocked && c.retry != nil })
				g := h.enterGap(engine)
				act(h)
				g.leave()
				if name == "disconnect" || name == "stop" {
					idle.atEnd()
					return
				}
				idle.alive()
				long.send(request[100_000:])
				lazy.awaitAll()
				poor.await(second)
				long.ok(long.await(cookie))
				sameBytes(t, payload, long.read(0, 600_000))
				for _, w := range []*wireClient{long, lazy, poor} {
					w.alive()
				}
			})
		})
	}
}

func forEach(h *house, fn func(id uint64)) {
	for id := uint64(1); id <= h.dialed; id++ {
		fn(id)
	}
}

// Goal: a client that comes while its export is between two loops is served once that has arrived. Method: it chooses the export in the
// gap, and hears that it has it when the move is over.
func TestClientComesBetweenTwoLoops(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		h.dial(dialOptions{}).alive()
		g := h.enterGap(engine)
		var w *wireClient
		come := begin(func() (err error) { w, err = h.negotiate(dialOptions{}); return err })
		h.came(2)
		g.leave()
		require.NoError(t, <-come)
		h.dialed++
		w.alive()
	})
}

// Goal: a client leaves between two loops and is gone when the export has arrived; an export is removed, and the server stopped, between two
// loops. Method: as above.
func TestGoesBetweenTwoLoops(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		g := h.enterGap(engine)
		w.conn.Close()
		g.leave()
		require.Equal(t, CauseEOF, h.closed().Cause)

		h = newHouse(t, houseOptions{engine: engine})
		w = h.dial(dialOptions{})
		g = h.enterGap(engine)
		removed := make(chan error, 1)
		go func() { removed <- h.server.RemoveExport(t.Context(), h.export, FarewellRestart) }()
		g.leave()
		require.NoError(t, <-removed)
		w.atEnd()

		h = newHouse(t, houseOptions{engine: engine})
		w = h.dial(dialOptions{})
		g = h.enterGap(engine)
		stopped := make(chan error, 1)
		go func() { stopped <- h.stop() }()
		g.leave()
		require.NoError(t, <-stopped)
		w.atEnd()
	})
}

// closer closes the loop that a node is about to go to, and then does something.
type closer struct{ then func() }

func (closer) Quiesce()                            {}
func (closer) Busy() bool                          { return false }
func (closer) Resume()                             {}
func (closer) MayMove(*blockcore.AioContext) error { return nil }
func (c closer) Detach(to *blockcore.AioContext)   { to.Close(); c.then() }
func (closer) Attach(*blockcore.AioContext)        {}

// Goal: an export whose new loop cannot be entered goes on where it was, and what is posted in that moment is done there. Method: another owner of
// the node closes that loop when the old one has been left, and posts; the client writes and reads afterwards, and the next one comes in.
func TestMoveThatFailsOnTheWay(t *testing.T) {
	h := newHouse(t, houseOptions{})
	c := h.dial(dialOptions{})
	posted, done := false, make(chan struct{})
	post := func() { posted = h.export.post(func() { close(done) }) }
	root, err := h.graph.NewRoot(h.node, blockcore.RootOptions{Name: "closer", Owner: closer{post}})
	require.NoError(t, err)
	t.Cleanup(root.Close)
	to, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: "gone"})
	require.NoError(t, err)
	require.ErrorContains(t, h.graph.Move(t.Context(), h.node, to), "entering AioContext gone")
	require.True(t, posted)
	<-done
	c.write(0, fill(1, 512))
	h.dial(dialOptions{}).write(512, fill(2, 512))
}
