package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// begin runs fn, which is to wait for something, in a goroutine of its own.
func begin(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// refusedByName requires that nobody gets to an export of that name any more.
func (h *house) refusedByName(name string) {
	h.t.Helper()
	conn, err := net.Dial(h.listener.Addr().Network(), h.listener.Addr().String())
	require.NoError(h.t, err)
	defer conn.Close()
	_, err = negotiate(conn, dialOptions{export: name})
	require.ErrorContains(h.t, err, "ERR_UNKNOWN")
}

// Goal: a stop of the server ends while a drained section is held, with requests parked in it, a client in the handshake, and half a payload
// received; it does not end, but says whom it cuts off, while a backend is stuck with a write (T-X12, SHUT-5). Method: all of it at once; the section is ended
// after the server.
func TestStopWithEverything_T_X12(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		stuck := h.addExport("stuck")
		gate := blocktest.NewGate()
		h.fakes["stuck"].Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		parked, half := h.dial(dialOptions{}), h.dial(dialOptions{})
		half.send(firstOf(half, 100_000, 300_000))
		h.until("it was received", func() bool { return h.conn(2).large != nil })
		d := h.drain()
		parked.post(CmdWrite, 0, 0, 0, fill(1, 512))
		h.until("it is parked", func() bool { return h.conn(1).blocked })
		shaking, err := net.Dial("unix", h.listener.Addr().String())
		require.NoError(t, err)
		defer shaking.Close()
		_, err = NewClient(shaking)
		require.NoError(t, err)
		waiting := h.knock(dialOptions{export: "stuck"})
		waiting.post(CmdWrite, 0, 0, 0, fill(2, 512))
		gate.WaitHeld(1)

		ctx, cancel := context.WithCancel(t.Context())
		h.stopped = true
		stopped := begin(func() error { return h.server.Stop(ctx) })
		parked.atEnd()
		half.atEnd()
		require.NoError(t, shaking.SetDeadline(time.Now().Add(patience)))
		_, err = shaking.Read(make([]byte, 1))
		require.True(t, isEnd(err), "%v", err)
		cancel()
		h.until("the stuck one is cut off", func() bool { return stuck.connections()[0].broken })
		require.Empty(t, stopped, "a write may still land")
		gate.Open()
		require.ErrorContains(t, <-stopped, "clients were cut off")
		d.End()
		sameBytes(t, fill(2, 512), h.fakes["stuck"].Contents(blockcore.Range{Length: 512}))
		require.NotContains(t, h.log.Text(), "fake: write")
	})
}

// Goal: requests that wait for a throttle group hold up neither the stop of a server nor the end of an export: limits mean nothing any more, and all are
// answered (T-X12). Method: one byte a second is allowed; twenty writes are in flight.
func TestEndWithThrottledRequests_T_X12(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, end := range []func(h *house) error{
			func(h *house) error { return h.stop() },
			func(h *house) error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				return h.server.RemoveExport(ctx, h.export, FarewellRestart)
			},
		} {
			h := newHouse(t, houseOptions{engine: engine})
			group := blockcore.NewThrottleGroup("slow")
			var c blockcore.ThrottleConfig
			c.BPSTotal.Avg = 1
			require.NoError(t, group.Configure(c))
			require.NoError(t, h.update(h.node, func(tx *blockcore.Tx, d *blockcore.Drained) error {
				tx.SetThrottle(d, h.root, group)
				return nil
			}))
			w := h.dial(dialOptions{})
			for i := range uint64(20) {
				w.post(CmdWrite, 0, i*512, 0, fill(1, 512))
			}
			h.until("all are in flight", func() bool { return h.conn(1).inFlight >= 18 })
			require.NoError(t, end(h))
			for _, a := range w.awaitAll() {
				w.ok(a)
			}
			w.atEnd()
		}
	})
}

// Goal: servers stop while clients connect, and each client is served or sees its end, none is left behind (T-X13). Method: clients connect, ask
// and leave all the time; servers stop one after the other, a few clients later each time.
func TestStopRacesWithConnects_T_X13(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for i := range 30 {
			h := newHouse(t, houseOptions{engine: engine})
			crowd := h.crowd("disk")
			for range i % 6 {
				h.events.await(t, func(e Event) bool { _, ok := e.(ConnectionAccepted); return ok })
			}
			require.NoError(t, h.stop())
			crowd()
			h.close()
			h.served <- nil // for the end of the test, which asks again
		}
	})
}

// Goal: exports go while clients connect, and each client is served or sees its end (T-X13). Method: clients connect, ask and leave all the time, while
// on one server an export is removed, by every farewell, and added again.
func TestRemovalRacesWithConnects_T_X13(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{Retire: time.Millisecond}}})
		e := h.addExport("fickle")
		node := h.nodes[0]
		crowd := h.crowd("fickle")
		for i := range 150 {
			for range i % 4 {
				h.events.await(t, func(e Event) bool { o, ok := e.(ConnectionOpened); return ok && o.Export == "fickle" })
			}
			farewell := []Farewell{FarewellRestart, FarewellRetire, FarewellNone, FarewellPause(time.Millisecond), FarewellPause(patience)}[i%5]
			err := h.server.RemoveExport(t.Context(), e, farewell)
			var inUse *ErrInUse
			if farewell == FarewellNone && errors.As(err, &inUse) {
				continue
			}
			require.NoError(t, err)
			if farewell.kind != pauses {
				require.Zero(t, e.Clients())
			}
			e, err = h.server.AddExport(h.graph, ExportOptions{Name: "fickle", Node: node, Writable: true})
			require.NoError(t, err)
		}
		crowd()
	})
}

// crowd has clients connect to an export, ask and leave, until the function that it returns is called. What they meet is an answer, a
// refusal, or an end.
func (h *house) crowd(export string) (disperse func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := net.Dial(h.listener.Addr().Network(), h.listener.Addr().String())
				if err != nil {
					return // the listener is gone
				}
				if w, err := negotiate(conn, dialOptions{export: export, style: replyStyle(i % 3)}); err == nil {
					_, _ = w.succeed(CmdWrite, 0, 0, fill(1, 512))
				}
				conn.Close()
			}
		})
	}
	return func() { close(stop); wg.Wait() }
}

// Goal: by FarewellRestart an export lets requests in flight finish, answers them, drops what has not begun, and closes without a word; others
// are served all along (SHUT-1, SHUT-3). Method: one request held in the disk, half of one, an idle client; a bystander of another export.
func TestFarewellRestart(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		e := h.addExport("going")
		gate := blocktest.NewGate()
		h.fakes["going"].Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		busy, idle := h.knock(dialOptions{export: "going"}), h.knock(dialOptions{export: "going"})
		bystander := h.knock(dialOptions{export: "disk"})
		idle.alive()
		cookie := busy.post(CmdWrite, 0, 0, 0, fill(1, 512))
		busy.send(firstOf(busy, 100, 512))
		gate.WaitHeld(1)
		removed := begin(func() error { return h.server.RemoveExport(t.Context(), e, FarewellRestart) })
		idle.atEnd()
		h.refusedByName("going")
		require.Len(t, h.server.Connections(), 2, "the busy one is there still")
		require.ErrorContains(t, h.server.RemoveExport(t.Context(), e, FarewellRestart), "already shutting down")
		require.Empty(t, removed)
		bystander.alive()
		gate.Open()
		busy.ok(busy.await(cookie))
		busy.atEnd()
		require.NoError(t, <-removed)
		h.events.await(t, func(e Event) bool { r, ok := e.(ExportRemoved); return ok && r.Export == "going" })
		bystander.alive()
	})
}

// Goal: by FarewellRetire what was in flight is answered as always, and everything later with ESHUTDOWN, also what a drained section holds back; the
// export is gone when its clients are, or when their time is over (SHUT-2). Method: a request held in the disk, one parked, one sent later; the clients
// leave, or stay for a time that is short.
func TestFarewellRetire(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			for _, leaves := range []bool{true, false} {
				limits := Limits{Retire: patience}
				if !leaves {
					limits.Retire = 50 * time.Millisecond
				}
				h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: limits}})
				w := h.dial(dialOptions{style: style})
				gate := blocktest.NewGate()
				h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
				cookie := w.post(CmdWrite, 0, 0, 0, fill(1, 512))
				gate.WaitHeld(1)
				half, halfCookie := w.request(CmdWrite, 0, 0, 0, fill(2, 300_000))
				w.send(half[:100_000])
				h.until("it was received", func() bool { return h.conn(1).large != nil })
				drained := begin(func() error { h.drain().End(); return nil })
				h.until("the drain has begun", func() bool { return h.export.still })
				removed := begin(func() error { return h.server.RemoveExport(t.Context(), h.export, FarewellRetire) })
				h.until("it retires", func() bool { return h.export.retired })
				if leaves {
					w.send(half[100_000:])
					parked := w.post(CmdFlush, 0, 0, 0, nil)
					gate.Open()
					answers := w.awaitAll()
					w.ok(answers[cookie])
					w.refused(EShutdown, answers[halfCookie])
					w.refused(EShutdown, answers[parked])
					w.refused(EShutdown, w.do(CmdRead, 0, 0, 512, nil))
					w.disconnect()
				} else {
					gate.Open()
					w.ok(w.await(cookie))
					_, err := w.next()
					require.True(t, isEnd(err), "%v", err)
				}
				require.NoError(t, <-removed)
				require.NoError(t, <-drained)
				require.NotContains(t, h.log.Text(), "+0x493e0")
			}
		})
	})
}

// Goal: by FarewellNone an export that has clients stays, unharmed, and says so in QEMU's words. Method: with a client, and when it has left.
func TestFarewellNone(t *testing.T) {
	h := newHouse(t, houseOptions{})
	w := h.dial(dialOptions{})
	err := h.server.RemoveExport(t.Context(), h.export, FarewellNone)
	require.EqualError(t, err, "export 'disk' still in use")
	w.alive()
	h.dial(dialOptions{}).disconnect()
	w.disconnect()
	h.closed()
	h.closed()
	require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellNone))
	require.Empty(t, h.server.Exports())
}

// Goal: a client that is told that it has an export has it: by FarewellNone the export stays from before the answer to GO and to EXPORT_NAME on. Method: the
// negotiation is stepped by hand; the client goes without having come, and the export may go. One that asks afterwards meets no export.
func TestUnusedExportStaysForAClientThatComes(t *testing.T) {
	h := newHouse(t, houseOptions{})
	old := optionRequest{option: OptExportName, length: 4, data: []byte("disk")}
	data := infoData("disk")
	asked := optionRequest{option: OptGo, length: uint32(len(data)), data: data}
	for _, o := range []optionRequest{old, asked} {
		n := negotiation{catalog: h.server, peer: &Peer{}, fixed: true}
		require.Equal(t, verdictTransmission, n.step(o).verdict)
		require.EqualError(t, h.server.RemoveExport(t.Context(), h.export, FarewellNone), "export 'disk' still in use")
		n.disagree()
		require.Zero(t, h.export.expected)
	}
	late := negotiation{catalog: found{h.server, h.export}, peer: &Peer{}, fixed: true}
	require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellNone))
	require.Equal(t, verdictContinue, late.step(asked).verdict)
	require.Contains(t, string(late.out), "no export is called")
	require.ErrorContains(t, late.step(old).reason, "no export is called")
}

// found is a catalog that has looked an export up just before it was removed.
type found struct {
	catalog
	e *Export
}

func (f found) find(string, *Peer) (exportInfo, bool) { return f.e.info(), true }

// cancelled is a catalog whose handshake is cancelled when an export was chosen.
type cancelled struct {
	catalog
	cancel func()
}

func (c cancelled) find(name string, p *Peer) (exportInfo, bool) {
	c.cancel()
	return c.catalog.find(name, p)
}

// Goal: a client that has chosen an export and does not come holds nothing up. Method: a handshake that is cancelled behind the choice; a client that leaves instead of
// taking the answer to GO.
func TestClientThatDoesNotCome(t *testing.T) {
	h := newHouse(t, houseOptions{})
	ours, theirs := net.Pipe()
	defer ours.Close()
	ctx, cancel := context.WithCancel(t.Context())
	shaken := begin(func() error {
		_, _, _, err := handshake(ctx, theirs, cancelled{h.server, cancel}, handshakeOptions{})
		return err
	})
	c, err := NewClient(ours)
	require.NoError(t, err)
	require.NoError(t, c.send(OptGo, infoData("disk")))
	require.ErrorIs(t, <-shaken, ErrCancelled)

	conn, err := net.Dial("unix", h.listener.Addr().String())
	require.NoError(t, err)
	leaves, err := NewClient(conn)
	require.NoError(t, err)
	require.NoError(t, leaves.send(OptGo, infoData("disk")))
	conn.Close()
	require.Eventually(t, func() bool { return h.server.RemoveExport(t.Context(), h.export, FarewellNone) == nil }, patience, time.Millisecond)
}

// Goal: a removal that takes too long cuts clients off and says so, and does not return while a write may land (SHUT-5). Method: a write held in the disk past
// the end of the context, by every farewell that removes.
func TestRemovalDeadline(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, farewell := range []Farewell{FarewellRestart, FarewellRetire} {
			h := newHouse(t, houseOptions{engine: engine})
			w := h.dial(dialOptions{})
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
			w.post(CmdWrite, 0, 0, 0, fill(1, 512))
			gate.WaitHeld(1)
			ctx, cancel := context.WithCancel(t.Context())
			removed := begin(func() error { return h.server.RemoveExport(ctx, h.export, farewell) })
			cancel()
			h.until("it is cut off", func() bool { return h.conn(1).broken })
			require.Empty(t, removed)
			gate.Open()
			require.ErrorContains(t, <-removed, "were cut off")
			sameBytes(t, fill(1, 512), h.disk.Contents(blockcore.Range{Length: 512}))
		}
	})
}

// Goal: a stop of the server does not wait for the time that a retiring export gives its clients. Method: an idle client of an export that retires for an
// hour.
func TestStopEndsARetirement(t *testing.T) {
	h := newHouse(t, houseOptions{server: ServerOptions{Limits: Limits{Retire: time.Hour}}})
	w := h.dial(dialOptions{})
	removed := begin(func() error { return h.server.RemoveExport(t.Context(), h.export, FarewellRetire) })
	h.until("it retires", func() bool { return h.export.retired })
	require.NoError(t, h.stop())
	require.NoError(t, <-removed)
	w.atEnd()
}

// Goal: at the stop of a server the clients of an export that is to retire meet ESHUTDOWN, those of another one a closed connection. Method: a client of each;
// the retiring one asks, and leaves.
func TestStopRetires(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, export: ExportOptions{Farewell: FarewellRetire}, server: ServerOptions{Limits: Limits{Retire: patience}}})
		h.addExport("other")
		retiring, other := h.dial(dialOptions{export: "disk"}), h.knock(dialOptions{export: "other"})
		stopped := begin(h.stop)
		h.until("it retires", func() bool { return h.export.retired })
		retiring.refused(EShutdown, retiring.do(CmdRead, 0, 0, 512, nil))
		other.alive()
		retiring.disconnect()
		require.NoError(t, <-stopped)
		other.atEnd()
	})
}

// Goal: an export comes back under its name with no less than clients have seen, unless that is allowed (nbd.md, finding 3): QEMU aborts when it reconnects
// to less. Method: each way to be less, and to be more, after an export that could all.
func TestExportsComeBackWithNoLess(t *testing.T) {
	for name, c := range map[string]struct {
		size   int64
		locked bool
		slow   bool
		want   string
	}{
		"the same":          {size: mib},
		"larger":            {size: 2 * mib},
		"smaller":           {size: mib / 2, want: "it had 1048576 bytes and would come back with 524288"},
		"read-only":         {size: mib, locked: true, want: "it was writable and would come back read-only"},
		"without fast zero": {size: mib, slow: true, want: "it would come back without"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{Features: blockcore.Features{FastZero: true}}})
			require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellRestart))
			disk := blocktest.NewFake(blocktest.FakeOptions{SizeBytes: c.size, Features: blockcore.Features{FastZero: !c.slow}})
			node, err := h.graph.AddNode(blockcore.NodeOptions{Name: "next", Context: h.ctx, Driver: disk})
			require.NoError(t, err)
			h.nodes = append(h.nodes, node)
			o := ExportOptions{Name: "disk", Node: node, Writable: !c.locked}
			_, err = h.server.AddExport(h.graph, o)
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
			require.Empty(t, h.server.lanes, "nothing is kept for an export that is refused")
			o.AllowLess = true
			_, err = h.server.AddExport(h.graph, o)
			require.NoError(t, err)
		})
	}
}

// Goal: what is told of connections is true, and one of them can be thrown out: what it has in flight is finished and not answered (DI-2). Method: one
// idle, one that owes a header, one that owes a payload, one that reads nothing, one with a request in the disk; all are thrown out; no such one.
func TestConnectionsAndDisconnect(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		gate := blocktest.NewGate()
		h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		var all []*wireClient
		for range 5 {
			all = append(all, h.dial(dialOptions{}))
		}
		all[1].send(firstOf(all[1], 10, 512))
		all[2].send(firstOf(all[2], 100_000, 300_000))
		h.narrow(4)
		for range 3 {
			all[3].post(CmdRead, 0, 0, mib, nil)
		}
		all[4].post(CmdWrite, 0, 0, 0, fill(1, 512))
		gate.WaitHeld(1)
		h.until("all are where they should be", func() bool {
			return h.conn(2).partial() == 10 && h.conn(3).large != nil && h.conn(4).out.blocked
		})
		told := h.server.Connections()
		require.Len(t, told, 5)
		for i, c := range told {
			require.Equal(t, uint64(i+1), c.ID)
			require.Equal(t, "disk", c.Export)
			require.NotNil(t, c.Peer.Unix)
			require.Equal(t, []string{"", "header", "payload", "", ""}[i], c.Receiving)
			require.Equal(t, i == 3, c.Sending)
			require.Equal(t, i == 4, c.InFlight == 1)
		}
		require.EqualError(t, h.server.Disconnect(99), "there is no client 99")
		for _, c := range told {
			require.NoError(t, h.server.Disconnect(c.ID))
		}
		for _, w := range all[:3] {
			w.atEnd()
		}
		h.until("four are gone", func() bool { return h.export.Clients() == 1 })
		require.Equal(t, int64(1), h.root.InFlight())
		gate.Open()
		all[4].atEnd()
		for range 5 {
			require.Equal(t, CauseDisconnected, h.closed().Cause)
		}
		sameBytes(t, fill(1, 512), h.disk.Contents(blockcore.Range{Length: 512}))
	})
}

// Goal: an export that another one replaces under its name between the answer to GO and the transmission phase is not confused with it. Method: the
// client's handshake is finished by hand, with the export removed and another one added in between.
func TestExportIsTheOneThatWasNegotiated(t *testing.T) {
	h := newHouse(t, houseOptions{})
	info, ok := h.server.find("disk", &Peer{})
	require.True(t, ok)
	require.True(t, h.export.expect())
	require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellRestart))
	_, err := h.server.AddExport(h.graph, ExportOptions{Name: "disk", Node: h.node, AllowLess: true})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	d, err := h.server.reserve(conn)
	require.NoError(t, err)
	require.EqualError(t, h.server.transmit(negotiated{export: info}, conn, &Peer{}, &d), fmt.Sprintf("export %q is being removed", "disk"))
}
