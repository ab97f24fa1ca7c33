package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// tcpOf is the socket under a client.
func tcpOf(w *wireClient) *net.TCPConn {
	if t, ok := w.conn.(*tls.Conn); ok {
		return t.NetConn().(*net.TCPConn)
	}
	return w.conn.(*net.TCPConn)
}

// Goal: a connection that the server ends takes no reply back that the network has not delivered (SHUT-1, SHUT-4), after a planned
// stop as after a broken protocol. Method: a client over TCP that takes little at once has a reply in the server's socket, and sends
// requests that nobody will read when the server closes; it must get its replies and then an end of file, not a reset. In clear
// and behind TLS, on each engine.
func TestFarewellDeliversReplies(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, secure := range []bool{false, true} {
			for _, stop := range []bool{true, false} {
				testFarewell(t, engine, secure, stop)
			}
		}
	})
}

func testFarewell(t *testing.T, engine blockcore.EngineKind, secure, stop bool) {
	limits := Limits{Farewell: patience}
	h, o := (*house)(nil), dialOptions{style: styleStructured}
	if secure {
		h, o = newTLSHouse(t, engine, limits)
	} else {
		h = newHouse(t, houseOptions{engine: engine, network: "tcp", server: ServerOptions{Limits: limits}})
	}
	gate := blocktest.NewGate()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
	w := h.dial(o)
	require.NoError(t, tcpOf(w).SetReadBuffer(64<<10))
	data := fill(1, 300_000)
	w.post(CmdRead, CmdFlagDF, 0, uint64(len(data)), nil)
	w.post(CmdWrite, 0, 0, 0, fill(1, 512))
	gate.WaitHeld(1)
	h.until("the reply has left", func() bool { return h.conn(0).out.empty() })
	stopped := make(chan error, 1)
	if stop {
		go func() { stopped <- h.stop() }()
	} else {
		w.send(make([]byte, compactHeader))
	}
	h.until("the input has ended", func() bool { return h.conn(0).ended })
	w.send(make([]byte, 100_000))
	h.until("what nobody will read has come", func() bool { return unread(h.conn(0).fd) > 0 })
	gate.Open()
	h.until("the last reply has left", func() bool { c := h.conn(0); return c == nil || c.leaving })
	w.send(make([]byte, 100_000))
	require.NoError(t, tcpOf(w).SetReadBuffer(mib))
	for _, a := range w.awaitAll() {
		w.ok(a)
	}
	_, err := w.next()
	require.True(t, isEnd(err), "%v", err)
	require.False(t, errors.Is(err, unix.ECONNRESET), "%v", err)
	w.conn.Close()
	if stop {
		require.NoError(t, <-stopped)
	}
}

// Goal: a client that does not close its end after our farewell holds up a stop no longer than Limits.Farewell, and so does one that goes on
// sending (SHUT-5). Method: a short limit; idle clients that keep their sockets open, in clear and behind TLS, on each engine; the stop succeeds.
func TestFarewellIsBounded(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, secure := range []bool{false, true} {
			limits := Limits{Farewell: time.Millisecond}
			h, o := (*house)(nil), dialOptions{}
			if secure {
				h, o = newTLSHouse(t, engine, limits)
			} else {
				h = newHouse(t, houseOptions{engine: engine, network: "tcp", server: ServerOptions{Limits: limits}})
			}
			h.dial(o)
			flood := h.dial(o)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for zeroes := make([]byte, 10_000); ; {
					if _, err := flood.conn.Write(zeroes); err != nil {
						return
					}
				}
			}()
			require.NoError(t, h.stop())
			for range 2 {
				require.Contains(t, []Cause{CauseStopped, CauseProtocol}, h.closed().Cause)
			}
			tcpOf(flood).Close()
			<-ended
		}
	})
}

// Goal: idle clients hold up no stop, although they keep their sockets open (SHUT-5). Method: a limit longer than any test; the stop succeeds.
func TestFarewellIsShortForTheIdle(t *testing.T) {
	limits := Limits{Farewell: time.Hour}
	h := newHouse(t, houseOptions{network: "tcp", server: ServerOptions{Limits: limits}})
	h.dial(dialOptions{}).alive()
	h.until("all is acknowledged", func() bool { return settled(h.conn(0).fd) })
	require.NoError(t, h.stop())
	h, o := newTLSHouse(t, blockcore.EngineURing, limits)
	h.dial(o).alive()
	h.until("all is acknowledged", func() bool { return h.conn(0).pump.settled() })
	require.NoError(t, h.stop())
}

// Goal: a stop that is out of patience waits for no farewell (SHUT-5). Method: a client that keeps its socket open and a limit longer than any
// test; the context of Stop ends.
func TestFarewellEndsWithTheStop(t *testing.T) {
	h := newHouse(t, houseOptions{network: "tcp", server: ServerOptions{Limits: Limits{Farewell: time.Hour}}})
	gate := blocktest.NewGate()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
	w := h.dial(dialOptions{})
	w.post(CmdWrite, 0, 0, 0, fill(1, 512))
	gate.WaitHeld(1)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	h.stopped = true
	go func() { stopped <- h.server.Stop(ctx) }()
	h.until("the input has ended", func() bool { return h.conn(0).ended })
	w.send(make([]byte, 1000))
	h.until("what nobody will read has come", func() bool { return unread(h.conn(0).fd) > 0 })
	gate.Open()
	h.until("it is leaving", func() bool { return h.conn(0).leaving })
	cancel()
	require.ErrorContains(t, <-stopped, "cut off")
	require.Equal(t, CauseStopped, h.closed().Cause)
}
