package nbd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// pauseExport has the export of the house go with a pause, which has to begin.
func (h *house) pauseExport(most time.Duration) {
	h.t.Helper()
	require.NoError(h.t, h.server.RemoveExport(h.t.Context(), h.export, FarewellPause(most)))
	h.held()
}

// held awaits the beginning of a pause.
func (h *house) held() ClientsHeld {
	h.t.Helper()
	return h.events.await(h.t, func(e Event) bool { _, ok := e.(ClientsHeld); return ok }).(ClientsHeld)
}

// released awaits the end of a pause.
func (h *house) released() ClientsReleased {
	h.t.Helper()
	return h.events.await(h.t, func(e Event) bool { _, ok := e.(ClientsReleased); return ok }).(ClientsReleased)
}

// next adds another disk with an export of the name of the house's, which it becomes.
func (h *house) next(c *blockcore.AioContext, o ExportOptions) (*blocktest.Fake, error) {
	h.t.Helper()
	disk := blocktest.NewFake(blocktest.FakeOptions{Name: "next", Log: h.log})
	node, err := h.graph.AddNode(blockcore.NodeOptions{Context: c, Driver: disk})
	require.NoError(h.t, err)
	h.nodes = append(h.nodes, node)
	o.Name, o.Node = h.export.Name(), node
	e, err := h.server.AddExport(h.graph, o)
	if err == nil {
		h.export, h.root = e, e.root
	}
	return disk, err
}

// Goal: clients of an export that goes with a pause are clients of the next one of its name, over the same connections: what was in flight was answered
// and flushed, what they have sent since is executed there, and the old node is free meanwhile; nobody else gets in. Method: a request in the
// disk, half of a long one, one sent into the pause, an idle client; the next export on the same loop and on another one, with and without a main loop to
// wait on; in each style, on each engine.
func TestPauseHandsClientsOver(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			for _, home := range []bool{false, true} {
				testPause(t, houseOptions{engine: engine, home: home}, style)
			}
		})
	})
}

func testPause(t *testing.T, o houseOptions, style replyStyle) {
	h := newHouse(t, o)
	busy, half, idle := h.dial(dialOptions{style: style}), h.dial(dialOptions{style: style}), h.dial(dialOptions{style: style})
	gate := blocktest.NewGate()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
	cookie := busy.post(CmdWrite, 0, 0, 0, fill(1, 512))
	gate.WaitHeld(1)
	request, halfCookie := half.request(CmdWrite, 0, 8192, 0, fill(2, 300_000))
	half.send(request[:100_000])
	h.until("it was received", func() bool { return h.conn(2).large != nil })
	removed := begin(func() error { return h.server.RemoveExport(t.Context(), h.export, FarewellPause(patience)) })
	h.until("it is quiet", func() bool { return h.export.still })
	_, err := h.server.AddExport(h.graph, ExportOptions{Name: "disk", Node: h.node, Writable: true})
	require.ErrorContains(t, err, "is being removed; wait until it is gone")
	h.log.Take()
	gate.Open()
	busy.ok(busy.await(cookie))
	require.NoError(t, <-removed)
	require.Equal(t, ClientsHeld{"disk", 3, patience}, h.held())
	require.Contains(t, h.log.Text(), "fake: flush: ok")
	require.Empty(t, h.graph.Roots(), "the node is free")
	h.refusedByName("disk")
	asked := busy.post(CmdRead, 0, 8192, 300_000, nil)
	half.send(request[100_000:])
	told := h.server.Connections()
	require.Len(t, told, 3)
	for _, c := range told {
		require.True(t, c.Held)
	}

	h.log.Take()
	loop := h.ctx
	if o.home {
		loop = h.another(o.engine)
	}
	disk, err := h.next(loop, ExportOptions{Writable: true})
	require.NoError(t, err)
	end := h.released()
	require.Equal(t, OutcomeTakenOver, end.Outcome)
	require.Equal(t, 3, end.Clients)
	half.ok(half.await(halfCookie))
	busy.ok(busy.await(asked))
	idle.write(0, fill(3, 512))
	require.NotContains(t, h.log.Text(), "fake:")
	sameBytes(t, fill(2, 300_000), disk.Contents(blockcore.Range{Offset: 8192, Length: 300_000}))
	for _, w := range []*wireClient{busy, half, idle} {
		w.alive()
		require.Equal(t, h.export, h.conn(0).export)
		w.disconnect()
	}
	for range 3 {
		require.Equal(t, CauseDisconnect, h.closed().Cause)
	}
	require.Empty(t, h.server.departing)
	require.Empty(t, h.server.pauses)
}

// Goal: a pause ends at its limit, when the last client has left, and with the server; clients find a closed socket then, and what was not begun is not
// executed; the name is free. Method: each end, with a request sent into the pause; behind TLS as well.
func TestPauseEnds(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, secure := range []bool{false, true} {
			for _, want := range []Outcome{OutcomeLimit, OutcomeLeft, OutcomeStopped} {
				h, o := newHouse(t, houseOptions{engine: engine}), dialOptions{}
				if secure {
					h, o = newTLSHouse(t, engine, Limits{})
				}
				w := h.dial(o)
				most := patience
				if want == OutcomeLimit {
					most = 500 * time.Millisecond // in which the export comes to rest
				}
				h.pauseExport(most)
				request, _ := w.request(CmdWrite, 0, 0, 0, fill(1, 512))
				_, err := w.conn.Write(request)
				require.True(t, err == nil || want == OutcomeLimit, "%v", err) // the limit may have come before
				switch want {
				case OutcomeLeft:
					w.conn.Close()
					if secure { // the last words of TLS are an orderly end, which nobody looks for
						require.NoError(t, h.server.Disconnect(1))
					}
				case OutcomeStopped:
					require.NoError(t, h.stop())
				}
				require.Equal(t, want, h.released().Outcome)
				if want != OutcomeLeft {
					_, err = w.next()
					require.True(t, isEnd(err), "%v", err)
				}
				require.NotContains(t, h.log.Text(), "fake: write")
				if want != OutcomeStopped {
					disk, err := h.next(h.ctx, ExportOptions{Writable: true, AllowLess: true})
					require.NoError(t, err)
					h.knock(o).write(0, fill(1, 512))
					sameBytes(t, fill(1, 512), disk.Contents(blockcore.Range{Length: 512}))
				}
			}
		}
	})
}

// Goal: an export whose requests do not end, or whose disk cannot be flushed, does not pause but goes by FarewellRestart, and says why. Method: a write held in
// the disk past the limit; a flush that fails; no clients at all.
func TestPauseThatCannotBegin(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		gate := blocktest.NewGate()
		h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		cookie := w.post(CmdWrite, 0, 0, 0, fill(1, 512))
		gate.WaitHeld(1)
		removed := begin(func() error {
			return h.server.RemoveExport(t.Context(), h.export, FarewellPause(50*time.Millisecond))
		})
		refused := h.events.await(t, func(e Event) bool { _, ok := e.(PauseRefused); return ok }).(PauseRefused)
		require.ErrorAs(t, refused.Err, new(*blockcore.DrainError))
		gate.Open()
		w.ok(w.await(cookie))
		w.atEnd()
		require.NoError(t, <-removed)

		disk, err := h.next(h.ctx, ExportOptions{Writable: true})
		require.NoError(t, err)
		disk.Add(blocktest.Rule{Op: blocktest.OpFlush, Err: unix.EIO, Times: 1})
		w = h.dial(dialOptions{})
		require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellPause(patience)))
		refused = h.events.await(t, func(e Event) bool { _, ok := e.(PauseRefused); return ok }).(PauseRefused)
		require.ErrorIs(t, refused.Err, unix.EIO)
		w.atEnd()

		_, err = h.next(h.ctx, ExportOptions{Writable: true})
		require.NoError(t, err)
		require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellPause(patience)))
		require.Empty(t, h.server.pauses)
		require.Empty(t, h.server.departing)
	})
}

// Goal: an export with less does not end a pause unless that is allowed; then a client that uses what is not there any more loses its connection, and one that
// does not goes on; a smaller size costs nobody the connection. Method: read-only after writable, with a client that may write and one that TLS
// is now asked of; half the size.
func TestPauseAndLess(t *testing.T) {
	h := newHouse(t, houseOptions{})
	w := h.dial(dialOptions{})
	h.pauseExport(patience)
	_, err := h.next(h.ctx, ExportOptions{})
	require.ErrorContains(t, err, "it was writable and would come back read-only")
	require.Len(t, h.server.Connections(), 1)
	_, err = h.next(h.ctx, ExportOptions{AllowLess: true})
	require.NoError(t, err)
	w.atEnd()
	require.ErrorContains(t, h.closed().Err, "would come back read-only")

	reader := h.dial(dialOptions{})
	h.pauseExport(patience)
	_, err = h.next(h.ctx, ExportOptions{TLSOnly: true})
	require.NoError(t, err)
	reader.atEnd()
	require.ErrorContains(t, h.closed().Err, "needs TLS")

	h = newHouse(t, houseOptions{disk: blocktest.FakeOptions{SizeBytes: 4 * mib}})
	w = h.dial(dialOptions{})
	h.pauseExport(patience)
	_, err = h.next(h.ctx, ExportOptions{Writable: true, AllowLess: true})
	require.NoError(t, err)
	w.write(0, fill(1, 512))
	w.refused(ENoSpc, w.do(CmdWrite, 0, mib, 0, fill(1, 512)))
	w.disconnect()
}

// Goal: replies that a client has not taken when its export pauses are not lost, nor held back. Method: a socket full of them; the client reads in the pause, or after
// it, from another loop.
func TestPauseWithRepliesUnread(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, inside := range []bool{false, true} {
			h := newHouse(t, houseOptions{engine: engine, home: true})
			w := h.dial(dialOptions{})
			h.narrow(1)
			w.write(0, fill(5, mib))
			for range 8 {
				w.post(CmdRead, 0, 0, mib, nil)
			}
			h.until("the socket is full", func() bool { return h.conn(1).out.blocked && h.root.InFlight() == 0 && unread(h.conn(1).fd) == 0 })
			h.pauseExport(patience)
			if inside {
				for _, a := range w.awaitAll() {
					w.ok(a)
				}
			}
			_, err := h.next(h.another(engine), ExportOptions{Writable: true})
			require.NoError(t, err)
			for _, a := range w.awaitAll() {
				w.ok(a)
			}
			w.write(0, fill(6, 512))
			w.alive()
			w.disconnect()
		}
	})
}

// Goal: no answer is lost or wrong when exports pause and come back under load, whatever else happens to them. Method: clients that verify, one behind TLS; the
// export goes and comes back on the same disk a hundred times, moved between, drained while it is taken over.
func TestPauseUnderLoad(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		server, client := serverCredentials(t)
		h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{TLS: TLSOptional, Credentials: server}})
		h.tls = client
		loops := []*blockcore.AioContext{h.ctx, h.another(engine)}
		h.loaded(func() {
			for i := range 100 {
				h.pauseExport(patience)
				if i%3 == 0 {
					require.NoError(t, h.graph.Move(t.Context(), h.node, loops[i%2]))
				}
				drains := begin(func() error {
					for range 3 {
						d, err := h.graph.Drain(t.Context(), blockcore.DrainOptions{Why: "test", Nodes: []*blockcore.Node{h.node}})
						if err != nil {
							return err
						}
						d.End()
					}
					return nil
				})
				e, err := h.server.AddExport(h.graph, ExportOptions{Name: "disk", Node: h.node, Writable: true})
				require.NoError(t, err)
				h.export, h.root = e, e.root
				if i%4 == 0 {
					require.NoError(t, h.graph.Move(t.Context(), h.node, loops[(i/4)%2]))
				}
				require.NoError(t, <-drains)
				require.Equal(t, OutcomeTakenOver, h.released().Outcome)
			}
		})
	})
}

// Goal: whatever of a takeover, a stop, the limit and a removal comes first, all clients are told or served, and nothing is left. Method: all at once, many times.
func TestPauseRaces(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for i := range 40 {
			h := newHouse(t, houseOptions{engine: engine, home: i%2 == 0})
			for range 3 {
				h.knock(dialOptions{}).post(CmdFlush, 0, 0, 0, nil)
			}
			removed := begin(func() error {
				return h.server.RemoveExport(t.Context(), h.export, FarewellPause(time.Duration(i%5)*time.Millisecond+1))
			})
			if i%3 != 0 {
				h.events.await(t, func(e Event) bool {
					switch e.(type) {
					case ClientsHeld, PauseRefused, ExportRemoved:
						return true
					}
					return false
				})
			}
			added := begin(func() error {
				e, err := h.server.AddExport(h.graph, ExportOptions{Name: "disk", Node: h.node, Writable: true})
				if err == nil && i%4 == 0 {
					return h.server.RemoveExport(t.Context(), e, FarewellRestart)
				}
				return nil // refused: the one before is going still, or the server is
			})
			require.NoError(t, h.stop())
			<-removed
			<-added
			require.Empty(t, h.server.pauses)
		}
	})
}
