package nbd

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// leavePoint is a place in the life of a connection where its client may go.
type leavePoint struct {
	reach   func(h *house, w *wireClient, gate *blocktest.Gate) // brings w there
	section bool                                                // only inside of a drained section
	disc    bool                                                // DISC may be said there
}

var leavePoints = map[string]leavePoint{
	"idle": {reach: func(*house, *wireClient, *blocktest.Gate) {}, disc: true},
	"in a header": {reach: func(h *house, w *wireClient, _ *blocktest.Gate) {
		w.send(firstOf(w, 17, 512))
		h.until("it was received", func() bool { return h.conn(0).partial() == 17 })
	}},
	"in a payload": {reach: func(h *house, w *wireClient, _ *blocktest.Gate) {
		w.send(firstOf(w, compactHeader+100, 512))
		h.until("it was received", func() bool { return h.conn(0).partial() == compactHeader+100 })
	}},
	"in a long payload": {reach: func(h *house, w *wireClient, _ *blocktest.Gate) {
		w.send(firstOf(w, 200_000, 300_000))
		h.until("it was received", func() bool { return h.conn(0).partial() == 200_000 })
	}},
	"parked": {section: true, disc: true, reach: func(h *house, w *wireClient, _ *blocktest.Gate) {
		w.post(CmdWrite, 0, 0, 0, fill(9, 512))
		h.until("it is parked", func() bool { return h.conn(0).blocked })
	}},
	"parked behind a long payload": {section: true, reach: func(h *house, w *wireClient, _ *blocktest.Gate) {
		w.post(CmdWrite, 0, 0, 0, fill(9, 300_000))
		h.until("it is parked", func() bool { return h.conn(0).blocked })
	}},
	"in flight": {disc: true, reach: func(_ *house, w *wireClient, gate *blocktest.Gate) {
		w.post(CmdWrite, 0, 4096, 0, fill(8, 512))
		gate.WaitHeld(1)
	}},
	"reply blocked": {disc: true, reach: func(h *house, w *wireClient, _ *blocktest.Gate) {
		h.onLoop(func() {
			require.NoError(h.t, unix.SetsockoptInt(h.conn(0).fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10))
		})
		w.post(CmdRead, 0, 0, 16*mib, nil)
		h.until("the socket is full", func() bool { return h.conn(0).out.blocked })
	}},
}

// disc is a way to go besides those in goodbyes: the polite one.
const disc = "DISC"

// Goal: a client may go at any point, in any way, with and without a drained section, and all counts are back at zero: requests in flight are
// finished, nothing that was cut off is executed, and the next client finds its seat (T-X4, DI-2). Method: every point times every way
// times no section, one that is held, and a drain that waits for the request in flight; one seat; the house counts at the end.
func TestClientLeaves_T_X4(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, network: "tcp", disk: blocktest.FakeOptions{SizeBytes: 16 * mib},
			server: ServerOptions{ClientsMax: 1}})
		for where, point := range leavePoints {
			for _, how := range []string{"half closed", "closed", "reset", disc} {
				for _, drained := range []bool{false, true} {
					if how == disc && !point.disc || point.section && !drained {
						continue
					}
					h.leave(where+", "+how, point, how, drained)
				}
			}
		}
		h.dial(dialOptions{}).disconnect()
	})
}

// leave is one client that goes.
func (h *house) leave(what string, point leavePoint, how string, drained bool) {
	gate := blocktest.NewGate()
	h.disk.ClearRules()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Range: blockcore.Range{Offset: 4096, Length: 1}, Gate: gate})
	h.log.Take()
	w := h.dial(dialOptions{})
	var d *blockcore.Drained
	if drained && point.section {
		d = h.drain()
	}
	point.reach(h, w, gate)
	settled := make(chan *blockcore.Drained, 1)
	if drained && !point.section {
		go func() {
			d, err := h.graph.Drain(context.Background(), blockcore.DrainOptions{Why: what, Nodes: []*blockcore.Node{h.node}, Max: patience})
			require.NoError(h.t, err, what)
			settled <- d
		}()
		h.until("the drain has begun", func() bool { return h.export.still })
	}
	if how == disc {
		w.post(CmdDisc, 0, 0, 0, nil)
	} else {
		goodbyes[how](h.t, w.conn)
	}
	gate.Open()
	if drained && !point.section {
		d = <-settled // in spite of the client
	}
	if d != nil {
		d.End()
	}
	if how == disc || how == "half closed" {
		for { // it reads all that it is still told
			if _, err := w.next(); err != nil {
				break
			}
		}
	}
	h.closed()
	require.Zero(h.t, h.root.InFlight(), what)
	require.Zero(h.t, h.server.budget.used.Load(), what)
	require.Zero(h.t, h.export.Clients(), what)
	log := h.log.Text()
	if what[:2] == "in" && what[:9] != "in flight" {
		require.NotContains(h.t, log, "write", what)
	}
	if point.section && (how == disc || how == "half closed") {
		require.Contains(h.t, log, "write [0x0", what)
	}
}

// Goal: a client that is gone for good while its requests are parked is noticed in the section: its seat and memory are free long before the
// section ends, and what it had asked for is not executed after others have written (T-X4, DI-2). Method: a unix socket closed, a TCP connection
// reset, one behind TLS, with a WRITE parked, on each engine; a client that closed its half only stays and is answered.
func TestClientIsGoneInASection_T_X4(t *testing.T) {
	for name, reset := range map[string]bool{"unix": false, "tcp": true, "tls": true} {
		t.Run(name, func(t *testing.T) {
			eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
				for _, length := range []int{512, 300_000} {
					var h *house
					var o dialOptions
					if name == "tls" {
						h, o = newTLSHouse(t, engine, Limits{})
					} else {
						h = newHouse(t, houseOptions{engine: engine, network: map[string]string{"tcp": "tcp"}[name]})
					}
					w := h.dial(o)
					d := h.drain()
					w.post(CmdWrite, 0, 0, 0, fill(1, length))
					h.until("it is parked", func() bool { return h.conn(0).blocked })
					if reset {
						goodbyes["reset"](t, bare(w.conn))
					} else {
						w.conn.Close()
					}
					h.closed()
					require.Zero(t, h.export.Clients())
					require.Zero(t, h.server.budget.used.Load())
					d.End()
					h.dial(o).alive()
					require.NotContains(t, h.log.Text(), "fake: write")
				}
			})
		})
	}
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, network: "tcp"})
		w := h.dial(dialOptions{})
		d := h.drain()
		cookie := w.post(CmdWrite, 0, 0, 0, fill(1, 512))
		goodbyes["half closed"](t, w.conn)
		h.until("it is parked", func() bool { return h.conn(0).blocked })
		h.awaitLooks(2)
		d.End()
		w.ok(w.await(cookie))
		w.atEnd()
	})
}

// Goal: what a client sends on a new connection is done after what it had sent on the one that it has given up, which came before, although a section has parked
// both (T-X4, DI-2). Method: a WRITE on each, to one place, a number of times; that of the second one is what is read.
func TestOldConnectionsGoFirst_T_X4(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		old := h.dial(dialOptions{})
		h.until("it is there", func() bool { return h.conn(1) != nil })
		next := h.dial(dialOptions{})
		h.until("it is there", func() bool { return h.conn(2) != nil })
		for range 20 {
			d := h.drain()
			first, second := old.post(CmdWrite, 0, 0, 0, fill(1, 512)), next.post(CmdWrite, 0, 0, 0, fill(2, 512))
			h.until("both are parked", func() bool { return h.conn(1).blocked && h.conn(2).blocked })
			d.End()
			old.ok(old.await(first))
			next.ok(next.await(second))
			require.Equal(t, fill(2, 512), old.read(0, 512))
		}
	})
}

// Goal: what a client writes over its next connection is done after what it had in flight on the one that broke (T-X4, DI-2). Method: a WRITE that stays at the disk, a
// goodbye, and another one to the same place and one beside it: that one is done, the first two are in order whatever was noticed first.
func TestRequestsInFlightOfTheGoneGoFirst_T_X4(t *testing.T) {
	for _, how := range []string{"closed", "reset"} {
		eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
			h := newHouse(t, houseOptions{engine: engine, network: map[string]string{"reset": "tcp"}[how]})
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate, Times: 1})
			defer gate.Open()
			old := h.dial(dialOptions{})
			old.post(CmdWrite, 0, 0, 0, fill(1, 512))
			gate.WaitHeld(1)
			goodbyes[how](t, old.conn)
			next := h.dial(dialOptions{})
			second := next.post(CmdWrite, 0, 0, 0, fill(2, 512))
			next.post(CmdWrite, 0, 512, 0, fill(3, 512))
			first, err := next.next()
			require.NoError(t, err)
			require.NotEqual(t, second, first.header.cookie)
			gate.Open()
			next.ok(next.await(second))
			require.Equal(t, fill(2, 512), next.read(0, 512))
		})
	}
}

// Goal: what a client writes over its next connection is done after what it had sent on the one that broke and the loop has not read yet (T-X4, DI-2). Method: the loop is kept busy, or a
// section holds it back, while more WRITEs are sent than one turn begins, the client goes, comes back and writes to the same place.
func TestUnreadRequestsOfTheGoneGoFirst_T_X4(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		for _, drained := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, drained %v", network, drained), func(t *testing.T) {
				eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
					h := newHouse(t, houseOptions{engine: engine, network: network})
					old := h.dial(dialOptions{})
					goOn := h.holdUp(drained)
					var all []byte
					for range burstInCompany + burstAlone {
						b, _ := old.request(CmdWrite, 0, 0, 0, fill(1, 512))
						all = append(all, b...)
					}
					old.send(all) // at once, for the end to come as soon
					if network == "tcp" {
						goodbyes["half closed"](t, old.conn)
					} else {
						goodbyes["closed"](t, old.conn)
					}
					var next *wireClient
					come := begin(func() (err error) { next, err = h.negotiate(dialOptions{}); return err })
					h.dialed++
					if h.came(2); !drained {
						goOn()
					}
					require.NoError(t, <-come)
					cookie := next.post(CmdWrite, 0, 0, 0, fill(2, 512))
					if drained {
						h.until("both are parked", func() bool { c := h.conn(2); return h.conn(1).blocked && c != nil && c.blocked })
						goOn()
					}
					next.ok(next.await(cookie))
					if network == "tcp" {
						old.awaitAll()
					} else {
						h.closed()
					}
					require.Equal(t, fill(2, 512), next.read(0, 512))
				})
			})
		}
	}
}

// Goal: a client is told that it has the export when the loop has its connection, so that none that it comes back over begins before it (T-X4). Method: while the loop is held up a client
// chooses the export; when that knows the connection nothing has been sent for the choice.
func TestClientIsToldByTheLoop_T_X4(t *testing.T) {
	for name, option := range map[string][]byte{"GO": optionBytes(OptGo, infoData("disk")), "EXPORT_NAME": optionBytes(OptExportName, []byte("disk"))} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, houseOptions{})
			conn, err := net.Dial("unix", h.listener.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			raw, err := conn.(*net.UnixConn).SyscallConn()
			require.NoError(t, err)
			goOn := h.holdUp(false)
			_, err = conn.Write(append(clientHello[:4:4], option...))
			require.NoError(t, err)
			h.came(1)
			told := 0
			err = raw.Control(func(fd uintptr) { told = unread(int(fd)) })
			goOn()
			require.NoError(t, err)
			require.Equal(t, len(greeting()), told, "bytes for the client")
			_, err = io.ReadFull(conn, make([]byte, len(greeting())+1))
			require.NoError(t, err)
		})
	}
}

// holdUp has the loop do nothing, or nothing for clients, until goOn is called.
func (h *house) holdUp(drained bool) (goOn func()) {
	if drained {
		return h.drain().End
	}
	busy, held := make(chan struct{}), make(chan struct{})
	require.True(h.t, h.ctx.Post(func() { close(held); <-busy }))
	<-held
	return func() { close(busy) }
}

// Goal: a client that says with its only request that there will be no more is answered, and then at the end. Method: both leave the client at once, a number of times.
func TestLastRequestComesWithTheEnd_T_X4(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, network: "tcp"})
		for range 20 {
			w := h.dial(dialOptions{})
			cookie := w.post(CmdRead, 0, 0, 512, nil)
			goodbyes["half closed"](t, w.conn)
			w.ok(w.await(cookie))
			w.atEnd()
		}
	})
}

// Goal: a host that dies without a word is found, whether its client rests or replies are on their way to it, and a client that only does
// not read is left alone (T-X4, DI-2, REQ-9). Method: a socket filter has the client's kernel drop all that comes, so that it acknowledges nothing;
// keepalive and the time allowed are short.
func TestClientDiesSilently_T_X4(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "replies on their way": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, houseOptions{network: "tcp", server: ServerOptions{Limits: Limits{Silence: time.Second}}})
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpRead, Gate: gate})
			w := h.dial(dialOptions{})
			h.onLoop(func() {
				for option, v := range map[int]int{unix.TCP_KEEPIDLE: 1, unix.TCP_KEEPINTVL: 1, unix.TCP_KEEPCNT: 1} {
					require.NoError(t, unix.SetsockoptInt(h.conn(0).fd, unix.IPPROTO_TCP, option, v))
				}
			})
			if busy {
				w.post(CmdRead, 0, 0, 512, nil)
				gate.WaitHeld(1)
			}
			deafen(t, w.conn)
			gate.Open()
			end := h.closed()
			require.Equal(t, CauseReset, end.Cause)
			require.ErrorIs(t, end.Err, unix.ETIMEDOUT)
		})
	}
	t.Run("alive and not reading", func(t *testing.T) {
		h := newHouse(t, houseOptions{network: "tcp", server: ServerOptions{Limits: Limits{Silence: time.Second}}})
		w := h.dial(dialOptions{})
		for range 30 {
			w.post(CmdRead, 0, 0, mib, nil)
		}
		h.until("the socket is full", func() bool { return h.conn(0).out.blocked })
		h.awaitLooks(8) // twice the time of silence
		require.Len(t, w.awaitAll(), 30)
	})
}

// awaitLooks waits until the export has looked for clients that are gone so many times.
func (h *house) awaitLooks(n int) {
	h.t.Helper()
	var last *blockcore.Timer
	for range n + 1 {
		h.until("it looks again", func() bool { return h.export.looking != last })
		h.onLoop(func() { last = h.export.looking })
	}
}

// deafen has the kernel drop all that comes for a socket, before TCP sees it.
func deafen(t testing.TB, conn net.Conn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	require.NoError(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	}))
	require.NoError(t, err)
}

// bare is the socket below TLS.
func bare(conn net.Conn) net.Conn {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return conn
}
