package nbd

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// newTLSHouse is a server that insists on TLS, and what its clients need.
func newTLSHouse(t *testing.T, engine blockcore.EngineKind, limits Limits) (*house, dialOptions) {
	server, client := serverCredentials(t)
	h := newHouse(t, houseOptions{engine: engine, network: "tcp", disk: blocktest.FakeOptions{SizeBytes: 40 * mib},
		server: ServerOptions{TLS: TLSRequired, Credentials: server, Limits: limits}})
	return h, dialOptions{style: styleStructured, tls: client}
}

// Goal: the transmission phase is the same behind TLS (TLS-12). Method: everything a client does, payloads of 32 MiB both ways, a refused WRITE
// whose payload must be taken out of the TLS stream, many requests at once; the end is a close_notify (TLS-9, TLS-10); on each engine.
func TestTransmissionOverTLS(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h, o := newTLSHouse(t, engine, Limits{})
		w := h.dial(o)
		serveFully(w)
		data := fill(1, 32*mib)
		w.write(1, data)
		sameBytes(t, data, w.read(1, 32*mib))
		for _, n := range []int{1, 1000, 300_000} {
			w.refused(ENoSpc, w.do(CmdWrite, 0, 40*mib, 0, fill(1, n)))
			w.alive()
		}
		for i := range uint64(100) {
			w.post(CmdRead, 0, i*100, 50_000, nil)
		}
		for _, a := range w.awaitAll() {
			sameBytes(t, data[max(a.header.offset, 1)-1:a.header.offset+49_999], a.data[max(int(1-int64(a.header.offset)), 0):])
		}
		w.post(CmdDisc, 0, 0, 0, nil)
		_, err := w.next()
		require.ErrorIs(t, err, io.EOF, "close_notify, and not a mere end of file")
		require.Equal(t, CauseDisconnect, h.closed().Cause)
	})
}

// Goal: a client that goes without close_notify is like any that goes, and what is in flight is finished (TLS-10, DI-2). Method: the socket is closed or
// reset under TLS, idle, in a payload, and with a WRITE held in the disk; the house checks that no goroutine stays.
func TestTLSClientGoes(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, how := range []string{"closed", "reset"} {
			h, o := newTLSHouse(t, engine, Limits{})
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
			go1, go2, go3 := h.dial(o), h.dial(o), h.dial(o)
			go2.send(firstOf(go2, 100_000, 300_000))
			go3.post(CmdWrite, 0, 0, 0, fill(7, 4096))
			gate.WaitHeld(1)
			for _, w := range []*wireClient{go1, go2, go3} {
				goodbyes[how](t, w.conn.(*tls.Conn).NetConn())
			}
			for range 2 {
				require.Contains(t, []Cause{CauseEOF, CauseReset}, h.closed().Cause)
			}
			gate.Open()
			require.Equal(t, uint64(4096), h.closed().Written)
			sameBytes(t, fill(7, 4096), h.disk.Contents(blockcore.Range{Length: 4096}))
			require.NotContains(t, h.log.Text(), "+0x493e0")
		}
	})
}

// Goal: what is on its way through TLS when the server stops reaches the client before Stop returns (SHUT-1, TLS-9). Method: Stop while a reply of
// 16 MiB is on its way and a WRITE is held in the disk.
func TestStopOverTLS(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h, o := newTLSHouse(t, engine, Limits{})
		gate := blocktest.NewGate()
		h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		w := h.dial(o)
		w.post(CmdRead, CmdFlagDF, 0, 16*mib, nil)
		w.post(CmdWrite, 0, 0, 0, fill(1, 512))
		gate.WaitHeld(1)
		stopped := make(chan error, 1)
		go func() { stopped <- h.stop() }()
		h.until("Stop has begun", func() bool { return h.conn(0).ended })
		gate.Open()
		require.Len(t, w.awaitAll(), 2)
		_, err := w.next()
		require.ErrorIs(t, err, io.EOF)
		w.conn.Close()
		require.NoError(t, <-stopped)
	})
}

// Goal: a TLS client that takes nothing any more holds neither goroutines nor its place for longer than others (TLS-9, SHUT-5). Method: replies
// unread behind DISC, with a short patience; the place is free when the client is given up, though its socket is open.
func TestTLSLinger(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h, o := newTLSHouse(t, engine, Limits{Linger: time.Millisecond})
		w := h.dial(o)
		require.NoError(t, w.conn.(*tls.Conn).NetConn().(*net.TCPConn).SetReadBuffer(4096))
		w.post(CmdRead, CmdFlagDF, 0, 32*mib, nil)
		w.post(CmdDisc, 0, 0, 0, nil)
		require.Equal(t, CauseLinger, h.closed().Cause)
		h.events.await(t, func(e Event) bool { _, ok := e.(ClientGone); return ok })
	})
}
