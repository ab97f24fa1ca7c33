package nbd

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// goodbyes are the ways in which a client goes without DISC.
var goodbyes = map[string]func(t testing.TB, conn net.Conn){
	"half closed": func(t testing.TB, conn net.Conn) { require.NoError(t, conn.(*net.TCPConn).CloseWrite()) },
	"closed":      func(t testing.TB, conn net.Conn) { require.NoError(t, conn.Close()) },
	"reset": func(t testing.TB, conn net.Conn) {
		require.NoError(t, conn.(*net.TCPConn).SetLinger(0))
		require.NoError(t, conn.Close())
	},
}

// middles are the places in a stream of bytes where a client may go, and how many requests have begun by then.
var middles = map[string]struct {
	requests uint64
	bytes    func(w *wireClient) []byte
}{
	"between requests":  {0, func(*wireClient) []byte { return nil }},
	"in a magic":        {0, func(w *wireClient) []byte { return firstOf(w, 3, 512) }},
	"in a header":       {0, func(w *wireClient) []byte { return firstOf(w, 20, 512) }},
	"before a payload":  {0, func(w *wireClient) []byte { return firstOf(w, compactHeader, 512) }},
	"in a payload":      {0, func(w *wireClient) []byte { return firstOf(w, compactHeader+511, 512) }},
	"in a long payload": {0, func(w *wireClient) []byte { return firstOf(w, 200_000, 300_000) }},
	"behind a request": {1, func(w *wireClient) []byte {
		b, _ := w.request(CmdWrite, 0, 8192, 0, fill(1, 512))
		return append(b, firstOf(w, 20, 512)...)
	}},
	"in a refused payload": {0, func(w *wireClient) []byte {
		b, _ := w.request(CmdWrite, 0, mib, 0, fill(1, 300_000))
		return b[:100_000]
	}},
}

// firstOf is the beginning of a WRITE at 0 of length bytes.
func firstOf(w *wireClient, n, length int) []byte {
	h := w.header(CmdWrite, 0, 0, uint64(length))
	if w.style == styleExtended {
		h.flags = CmdFlagPayloadLen
	}
	return append(encodeHeader(w.style, h), fill(9, length)...)[:n]
}

// Goal: a client that goes in the middle of something is cleaned up, what it had begun to send is not executed, and its place is
// free for the next one (REQ-10, BAD-29, DI-2). Method: every place in the stream times every way to go, one client at a time
// on a server with one place, on each engine; the event tells what happened.
func TestClientGoes(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, network: "tcp", server: ServerOptions{ClientsMax: 1}})
		for where, middle := range middles {
			for how, goodbye := range goodbyes {
				w := h.dial(dialOptions{})
				w.send(middle.bytes(w))
				h.until("all was received", func() bool {
					c := h.conn(0)
					return unread(c.fd) == 0 && c.stats.requests == middle.requests && c.inFlight == 0
				})
				goodbye(t, w.conn)
				end := h.closed()
				require.Equal(t, middle.requests, end.Requests, "%s, %s", where, how)
				if how == "reset" {
					require.Equal(t, CauseReset, end.Cause, "%s, %s", where, how)
				} else {
					require.Contains(t, []Cause{CauseEOF, CauseReset}, end.Cause, "%s, %s", where, how)
				}
				if end.Cause == CauseEOF {
					require.Equal(t, where == "between requests", end.Err == nil, "%s, %s: %v", where, how, end.Err)
				}
			}
		}
		require.NotContains(t, h.log.Text(), "write [0x0, ")
		h.dial(dialOptions{}).disconnect()
	})
}

// Goal: what is in flight when a client goes is finished: its writes reach the disk whole, and it is counted until then (DI-2, SHUT-1).
// Method: a WRITE is held in the disk, the client goes, the disk lets go; a client that only closed its half hears the answer.
func TestClientGoesWithRequestsInFlight(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for how, goodbye := range goodbyes {
			for _, size := range []int{512, 300_000} {
				h := newHouse(t, houseOptions{engine: engine, network: "tcp"})
				gate := blocktest.NewGate()
				h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
				w := h.dial(dialOptions{})
				cookie := w.post(CmdWrite, 0, 0, 0, fill(7, size))
				gate.WaitHeld(1)
				goodbye(t, w.conn)
				h.until("the end was seen", func() bool { return h.conn(0).ended })
				require.Equal(t, int64(1), h.root.InFlight())
				gate.Open()
				if how == "half closed" {
					w.ok(w.await(cookie))
					w.atEnd()
				}
				require.Equal(t, uint64(size), h.closed().Written)
				sameBytes(t, fill(7, size), h.disk.Contents(blockcore.Range{Length: int64(size)}))
			}
		}
	})
}

// Goal: DISC has no reply and lets all that came before finish, with replies; what comes after it is nothing (DI-1, BAD-30). Method: forty
// requests held in the disk, then DISC and a WRITE; in each style, on each engine, also as the first thing said.
func TestDisconnectFinishesAll(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			h.dial(dialOptions{style: style}).disconnect()
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpAny, Gate: gate})
			w := h.dial(dialOptions{style: style})
			var stream []byte
			for i := range 40 {
				command, payload := CmdRead, []byte(nil)
				if i%2 == 0 {
					command, payload = CmdWrite, fill(byte(i), 4096)
				}
				b, _ := w.request(command, 0, uint64(i)*8192, 4096, payload)
				stream = append(stream, b...)
			}
			w.send(stream)
			gate.WaitHeld(40)
			disc, _ := w.request(CmdDisc, 0, 0, 0, nil)
			w.send(slices.Concat(disc, firstOf(w, compactHeader+512, 512)))
			h.until("DISC was seen", func() bool { c := h.conn(0); return c.ended && c.cause == CauseDisconnect })
			gate.Open()
			require.Len(t, w.awaitAll(), 40)
			w.atEnd()
			for i := 0; i < 40; i += 2 {
				sameBytes(t, fill(byte(i), 4096), h.disk.Contents(blockcore.Range{Offset: int64(i) * 8192, Length: 4096}))
			}
		})
	})
}

// Goal: a client that has said DISC gets the replies that its socket was too full for, as long as it takes them (DI-1), and is given up
// when it does not. Method: 8 MiB of replies unread at DISC; once the client reads, once it does not and the patience is short.
func TestLinger(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, c := range []struct {
			linger time.Duration
			cause  Cause
		}{{patience, CauseDisconnect}, {time.Millisecond, CauseLinger}} {
			h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 8 * mib},
				server: ServerOptions{Limits: Limits{Linger: c.linger}}})
			w := h.dial(dialOptions{})
			cookie := w.post(CmdRead, 0, 0, 8*mib, nil)
			w.post(CmdDisc, 0, 0, 0, nil)
			if c.cause == CauseDisconnect {
				h.until("it lingers", func() bool { return h.conn(0).linger != nil && h.conn(0).out.blocked })
				w.ok(w.await(cookie))
				w.atEnd()
			}
			require.Equal(t, c.cause, h.closed().Cause)
		}
	})
}

// Goal: a client that goes while the server waits for it to read is noticed, and what it held is given back (DI-2, REQ-9). Method: a reply
// of 8 MiB blocked by a full socket, all ways to go that tell the server something.
func TestClientGoesUnread(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, how := range []string{"closed", "reset"} {
			h := newHouse(t, houseOptions{engine: engine, network: "tcp", disk: blocktest.FakeOptions{SizeBytes: 32 * mib}})
			w := h.dial(dialOptions{style: styleStructured})
			w.write(0, fill(1, 32*mib))
			for range 4 {
				w.post(CmdRead, 0, 0, 32*mib, nil)
			}
			h.until("the socket is full", func() bool { c := h.conn(0); return c.out.blocked && c.blocked })
			goodbyes[how](t, w.conn)
			require.Equal(t, CauseReset, h.closed().Cause)
		}
	})
}
