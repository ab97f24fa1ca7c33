package nbd

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// sendSplit sends b in the pieces that cuts make of it, each seen by the server before the next one is sent: that is,
// when the socket's other end is empty.
func (h *house) sendSplit(w *wireClient, b []byte, cuts ...int) {
	h.t.Helper()
	from := 0
	for _, at := range append(cuts, len(b)) {
		if at <= from || at > len(b) {
			continue
		}
		w.send(b[from:at])
		from = at
		h.until("the server has read all", func() bool { return h.server.received(h) })
	}
}

// received reports whether nothing waits in the socket of the only connection. On the loop.
func (s *Server) received(h *house) bool {
	c := h.conn(0)
	return c == nil || c.closed || unread(c.fd) == 0
}

// Goal: where a stream is cut into segments means nothing (REQ-1, EXT-3, EXT-5). Method: two WRITEs with a READ between them, cut
// at each byte of the headers and at places in the payloads, and byte by byte; on each engine, in compact and extended style.
func TestSplitRequests(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		for _, style := range []replyStyle{styleSimple, styleExtended} {
			h := newHouse(t, houseOptions{engine: engine})
			w := h.dial(dialOptions{style: style})
			stream := func(seed byte) ([]byte, []uint64) {
				first, a := w.request(CmdWrite, 0, 0, 0, fill(seed, 100))
				second, b := w.request(CmdRead, 0, 4096, 10, nil)
				third, c := w.request(CmdWrite, 0, 1000, 0, fill(seed+1, 3))
				return slices.Concat(first, second, third), []uint64{a, b, c}
			}
			check := func(seed byte) {
				for _, a := range w.awaitAll() {
					w.ok(a)
				}
				sameBytes(t, fill(seed, 100), h.disk.Contents(blockcore.Range{Length: 100}))
				sameBytes(t, fill(seed+1, 3), h.disk.Contents(blockcore.Range{Offset: 1000, Length: 3}))
			}
			b, _ := stream(0)
			check0 := func() { w.send(b); check(0) }
			check0()
			n := len(b)
			for at := 1; at < n; at++ {
				b, _ := stream(byte(at))
				h.sendSplit(w, b, at)
				check(byte(at))
			}
			b, _ = stream(200)
			cuts := make([]int, n)
			for i := range cuts {
				cuts[i] = i
			}
			h.sendSplit(w, b, cuts...)
			check(200)
			w.disconnect()
		}
	})
}

// Goal: payloads of all sizes arrive as they were sent, whatever way they take through the server's memory (REQ-1, SZ-5, SZ-9, WR-1, WR-3,
// BAD-25). Method: sizes around each limit inside, from one byte to 64 MiB; behind small requests and in front of one, whole, and
// cut in the middle; on each engine.
func TestPayloadSizes(t *testing.T) {
	sizes := []int{1, payloadInSlabMax - 1, payloadInSlabMax, payloadInSlabMax + 1, behindLargeMax, slabSize - compactHeader,
		slabSize - 1, slabSize, slabSize + 1, mib - 1, mib, mib + 1, 32 << 20, payloadMax}
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: payloadMax + mib}})
		for _, style := range []replyStyle{styleSimple, styleExtended} {
			w := h.dial(dialOptions{style: style})
			for i, n := range sizes {
				data := fill(byte(i), n)
				before, _ := w.request(CmdFlush, 0, 0, 0, nil)
				b, _ := w.request(CmdWrite, 0, uint64(i), 0, data)
				after, _ := w.request(CmdWrite, 0, payloadMax+4096, 0, fill(byte(i), 5000))
				stream := slices.Concat(before, b, after)
				if n <= mib && n > 1 {
					h.sendSplit(w, stream, len(before)+len(b)-n/2)
				} else {
					w.send(stream)
				}
				for _, a := range w.awaitAll() {
					w.ok(a)
				}
				sameBytes(t, data, h.disk.Contents(blockcore.Range{Offset: int64(i), Length: int64(n)}))
				sameBytes(t, fill(byte(i), 5000), h.disk.Contents(blockcore.Range{Offset: payloadMax + 4096, Length: 5000}))
			}
			w.disconnect()
		}
	})
}

// Goal: a WRITE above the limit is consumed and refused, so that the client may go on; one far above it ends the connection, since
// reading it would only be a way to be kept busy (WR-3, BAD-25, SZ-5, EXT-6). Method: one byte more than 64 MiB, and more than is skipped.
func TestPayloadTooLong(t *testing.T) {
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{SizeBytes: payloadMax + mib}})
	eachStyle(t, func(t *testing.T, style replyStyle) {
		w := h.dial(dialOptions{style: style})
		w.refused(EInval, w.do(CmdWrite, 0, 0, 0, fill(1, payloadMax+1)))
		w.alive()
		w.disconnect()
		require.Equal(t, CauseDisconnect, h.closed().Cause)
		flags := CommandFlags(0)
		if style == styleExtended {
			flags = CmdFlagPayloadLen
		}
		w = h.dial(dialOptions{style: style})
		w.send(encodeHeader(style, header{command: CmdWrite, flags: flags, length: payloadSkipMax + 1}))
		w.atEnd()
		require.Equal(t, CauseProtocol, h.closed().Cause)
	})
	require.NotContains(t, h.log.Text(), "write")
}

// Goal: many requests in one segment are all answered, once each (REQ-2, REQ-9, ORD-1, CH-15). Method: hundreds of requests of all kinds, good
// and bad, sent as one piece; more than may be in flight, and more than the memory for headers holds.
func TestPipeline(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine, server: ServerOptions{Limits: Limits{Requests: 16}}})
			w := h.dial(dialOptions{style: style})
			var stream []byte
			want := map[uint64]Errno{}
			add := func(e Errno, command Command, flags CommandFlags, offset, length uint64, payload []byte) {
				b, cookie := w.request(command, flags, offset, length, payload)
				stream, want[cookie] = append(stream, b...), e
			}
			for i := range uint64(600) {
				add(0, CmdWrite, 0, i*1024, 0, fill(byte(i), 1000))
				add(0, CmdRead, 0, i*1024, 100, nil)
				add(EInval, Command(300), 0, 0, 0, nil)
				add(0, CmdFlush, 0, 0, 0, nil)
				add(ENoSpc, CmdWrite, 0, 2*mib, 0, fill(1, 10))
				add(EInval, CmdRead, CmdFlagNoHole, 0, 10, nil)
			}
			sent := make(chan error, 1)
			go func() { _, err := w.conn.Write(stream); sent <- err }()
			for cookie, a := range w.awaitAll() {
				require.Equal(t, want[cookie], a.errno, fmt.Sprint(a.header))
			}
			require.NoError(t, <-sent)
			for i := range int64(600) {
				sameBytes(t, fill(byte(i), 1000), h.disk.Contents(blockcore.Range{Offset: i * 1024, Length: 1000}))
			}
			w.alive()
			end := func() ConnectionClosed { w.disconnect(); return h.closed() }()
			require.Equal(t, uint64(3602), end.Requests)
			require.Equal(t, uint64(1800), end.Failed)
		})
	})
}
