package nbd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: a planned stop finishes and answers what is in flight, tells nobody an error, executes nothing half, and closes (SHUT-1, SHUT-2,
// SHUT-3, SHUT-4, GEN-9). Method: a WRITE held in the disk, half another one and a client in the handshake when Stop begins; in each style, on
// each engine.
func TestStop(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
			idle, busy := h.dial(dialOptions{style: style}), h.dial(dialOptions{style: style})
			cookie := busy.post(CmdWrite, 0, 4096, 0, fill(1, 512))
			busy.send(firstOf(busy, compactHeader+511, 512))
			gate.WaitHeld(1)
			shaking, err := net.Dial("unix", h.listener.Addr().String())
			require.NoError(t, err)
			defer shaking.Close()
			_, err = NewClient(shaking)
			require.NoError(t, err)

			stopped := make(chan error, 1)
			go func() { stopped <- h.stop() }()
			idle.atEnd()
			require.NoError(t, shaking.SetDeadline(time.Now().Add(patience)))
			_, err = shaking.Read(make([]byte, 1))
			require.True(t, isEnd(err), "%v", err)
			_, err = net.Dial("unix", h.listener.Addr().String())
			require.Error(t, err)
			require.Empty(t, stopped)
			gate.Open()
			busy.ok(busy.await(cookie))
			busy.atEnd()
			require.NoError(t, <-stopped)
			sameBytes(t, fill(1, 512), h.disk.Contents(blockcore.Range{Offset: 4096, Length: 512}))
			require.NotContains(t, h.log.Text(), "write [0x0")
			for range 2 {
				require.Equal(t, CauseStopped, h.closed().Cause)
			}
			require.NoError(t, h.server.Stop(context.Background()), "once more")
		})
	})
}

// Goal: a stop that takes too long cuts its clients off and says so, and does not return while a write may still land (SHUT-5). Method: a
// client that does not read its reply, and one whose WRITE the disk holds until after the deadline.
func TestStopDeadline(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 8 * mib}})
		gate := blocktest.NewGate()
		h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		lazy, stuck := h.dial(dialOptions{}), h.dial(dialOptions{})
		h.narrow(1)
		lazy.post(CmdRead, 0, 0, 8*mib, nil)
		h.until("the socket is full", func() bool { return h.conn(1).out.blocked })
		stuck.post(CmdWrite, 0, 0, 0, fill(1, 512))
		gate.WaitHeld(1)
		ctx, cancel := context.WithCancel(context.Background())
		stopped := make(chan error, 1)
		h.stopped = true
		go func() { stopped <- h.server.Stop(ctx) }()
		h.until("Stop has begun", func() bool { return h.conn(1).ended && h.conn(2).ended })
		cancel()
		h.until("the lazy one is cut off", func() bool { return h.conn(1) == nil && h.conn(2).broken })
		require.Empty(t, stopped)
		gate.Open()
		err := <-stopped
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorContains(t, err, "cut off")
		sameBytes(t, fill(1, 512), h.disk.Contents(blockcore.Range{Length: 512}))
		for range 2 {
			require.Equal(t, CauseStopped, h.closed().Cause)
		}
	})
}

// Goal: a drain of the export holds requests back, and fails or loses none (SHUT-4). Method: the Root is drained while clients go on sending; all is
// answered after its end, and nothing reaches the disk before.
func TestDrainHoldsRequests(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		a, b := h.dial(dialOptions{style: styleStructured}), h.dial(dialOptions{})
		a.write(0, fill(1, 512))
		section, err := h.root.Drain(t.Context())
		require.NoError(t, err)
		h.log.Take()
		for i := range uint64(10) {
			a.post(CmdWrite, 0, i*512, 0, fill(2, 512))
			b.post(CmdFlush, 0, 0, 0, nil)
		}
		h.until("both are held", func() bool { return h.conn(1).blocked && h.conn(2).blocked })
		require.Zero(t, h.conn(1).inFlight+h.conn(2).inFlight, "what arrives stays unparsed")
		require.Empty(t, h.log.Text())
		section.End()
		for _, w := range []*wireClient{a, b} {
			for _, answer := range w.awaitAll() {
				w.ok(answer)
			}
			w.alive()
		}
	})
}

// Goal: clients beyond the limit wait in the backlog, unharmed, and each place that gets free is taken (GEN-7); one that only shakes hands has a place as
// well (HS-6). Method: one place; the second client has connected and hears its greeting when the first one goes, out of transmission or
// out of the handshake.
func TestSeats(t *testing.T) {
	h := newHouse(t, houseOptions{server: ServerOptions{ClientsMax: 1}})
	first := h.dial(dialOptions{})
	second, err := net.Dial("unix", h.listener.Addr().String())
	require.NoError(t, err)
	defer second.Close()
	first.alive()
	first.disconnect()
	w, err := negotiate(second, dialOptions{export: "disk"})
	require.NoError(t, err)
	w.t = t
	w.disconnect()
	left := []int{}
	for range 2 {
		left = append(left, h.events.await(t, func(e Event) bool { _, ok := e.(ClientGone); return ok }).(ClientGone).Left)
	}
	require.Equal(t, []int{0, 0}, left)

	h = newHouse(t, houseOptions{server: ServerOptions{Limits: Limits{Connections: 1}}})
	shaking, err := net.Dial("unix", h.listener.Addr().String())
	require.NoError(t, err)
	_, err = NewClient(shaking)
	require.NoError(t, err)
	require.Len(t, h.server.seats, cap(h.server.seats), "all places are taken")
	h.events.await(t, func(e Event) bool { a, ok := e.(ConnectionAccepted); return ok && a.Peer.Unix != nil })
	third, err := net.Dial("unix", h.listener.Addr().String())
	require.NoError(t, err)
	defer third.Close()
	shaking.Close()
	w, err = negotiate(third, dialOptions{export: "disk"})
	require.NoError(t, err)
	w.t = t
	w.disconnect()
}

// Goal: one seat serves clients at every listener (GEN-7). Method: two listeners, one seat; a client at the one is greeted when the client
// at the other has gone, in both directions; a client that still waits when the server stops is let go.
func TestOneSeatForTwoListeners(t *testing.T) {
	h := newHouse(t, houseOptions{server: ServerOptions{ClientsMax: 1}})
	other, err := net.Listen("unix", filepath.Join(t.TempDir(), "other"))
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(other) }()
	for _, l := range []net.Listener{other, h.listener, other, h.listener} {
		conn, err := net.Dial("unix", l.Addr().String())
		require.NoError(t, err)
		w, err := negotiate(conn, dialOptions{export: "disk"})
		require.NoError(t, err)
		w.t = t
		w.disconnect()
		conn.Close()
	}
	h.dialed += 4
	h.dial(dialOptions{})
	waiting, err := net.Dial("unix", other.Addr().String())
	require.NoError(t, err)
	require.NoError(t, h.stop())
	require.NoError(t, <-served)
	n, err := waiting.Read(make([]byte, 1))
	require.Zero(t, n)
	require.Error(t, err)
	waiting.Close()
}
