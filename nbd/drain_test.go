package nbd

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// headerBytes is the length of a request header of a style.
func headerBytes(style replyStyle) int {
	if style == styleExtended {
		return extendedHeader
	}
	return compactHeader
}

// Goal: a drain that meets a half-received header loses none of it, wherever it is cut and whether the rest comes in the section or after
// it (T-X1, SHUT-4). Method: a WRITE, cut behind each byte of its header, for each style, on each engine; then what was written is read.
func TestDrainWithHalfAHeader_T_X1(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			w := h.dial(dialOptions{style: style})
			for cut := 1; cut < headerBytes(style); cut++ {
				for _, inside := range []bool{false, true} {
					payload := fill(byte(cut), 512)
					request, cookie := w.request(CmdWrite, 0, uint64(cut)*512, 0, payload)
					w.send(request[:cut])
					h.until("the piece was received", func() bool { c := h.conn(1); return c.end-c.begin == cut })
					d := h.drain()
					if inside {
						w.send(request[cut:])
						h.until("the request is parked", func() bool { return h.conn(1).blocked })
					}
					d.End()
					if !inside {
						w.send(request[cut:])
					}
					w.ok(w.await(cookie))
					sameBytes(t, payload, w.read(uint64(cut)*512, 512))
				}
			}
			w.alive()
		})
	})
}

// Goal: a drain does not wait for the payload of a WRITE; others, and clients that come, are served meanwhile; a payload that comes in
// the section is parked and executed after it (T-X2, SHUT-4). Method: writes whose payload waits in the slab, and in a buffer of its own, cut in
// several places; in the section another client negotiates and asks, and one of another export is answered.
func TestDrainWithHalfAPayload_T_X2(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			other := h.addExport("other")
			bystander := h.knock(dialOptions{export: other.Name()})
			bystander.alive()
			h.dialed++
			w := h.dial(dialOptions{style: style})
			for _, c := range []struct{ length, cut int }{
				{4096, 0}, {4096, 1}, {4096, 4095}, {32 << 10, 100}, {300_000, 0}, {300_000, 200_000}, {300_000, 299_999},
			} {
				for _, inside := range []bool{false, true} {
					payload := fill(byte(c.length+c.cut), c.length)
					request, cookie := w.request(CmdWrite, 0, 8192, 0, payload)
					cut := headerBytes(style) + c.cut
					w.send(request[:cut])
					h.until("the piece was received", func() bool { return unread(h.conn(2).fd) == 0 && h.conn(2).partial() >= min(cut, 28) })
					d := h.drain()
					bystander.alive()
					late := h.dial(dialOptions{style: style})
					asked := late.post(CmdRead, 0, 0, 512, nil)
					h.log.Take()
					if inside {
						w.send(request[cut:])
						h.until("the request is parked", func() bool { return h.conn(2).blocked })
					}
					h.until("the one who came late is parked", func() bool { return h.conn(h.dialed).blocked })
					require.NotContains(t, h.log.Text(), "fake: write")
					require.Zero(t, h.root.InFlight())
					d.End()
					late.ok(late.await(asked))
					late.disconnect()
					if !inside {
						w.send(request[cut:])
					}
					w.ok(w.await(cookie))
					sameBytes(t, payload, w.read(8192, uint64(c.length)))
				}
			}
			w.alive()
		})
	})
}

// partial is how many bytes of a request that is not complete have been received, its header apart where that has been parsed.
func (c *Conn) partial() int {
	if c.large != nil {
		return compactHeader + c.large.filled
	}
	return c.end - c.begin
}

// Goal: a drain does not wait for a client to read its replies, and nothing of them is lost (T-X3, SHUT-4, drain.md 4.9 d). Method: a socket full of
// replies; the section is over before the client reads, or it reads inside of it; then it goes on as if nothing had been.
func TestDrainWithRepliesUnread_T_X3(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			for _, inside := range []bool{false, true} {
				h := newHouse(t, houseOptions{engine: engine})
				w := h.dial(dialOptions{style: style})
				h.narrow(1)
				w.write(0, fill(5, mib))
				for range 8 {
					w.post(CmdRead, 0, 0, mib, nil)
				}
				h.until("the socket is full", func() bool { return h.conn(1).out.blocked })
				d := h.drain()
				require.Zero(t, h.root.InFlight())
				if !inside {
					d.End()
				}
				// What was parsed before the section is answered in it; the rest waits.
				answered, err := w.next()
				require.NoError(t, err)
				require.NotNil(t, answered)
				sameBytes(t, fill(5, mib), answered.data)
				d.End()
				for _, a := range w.awaitAll() {
					sameBytes(t, fill(5, mib), w.ok(a).data)
				}
				w.alive()
			}
		})
	})
}

// Goal: a drain that meets ten bytes of a header leaves them alone; QEMU 7.2 and 8.2 throw them away, and the connection is out of step for ever (T-X1;
// drain.md 4.9 a). Method: ten bytes, a drain, the other eighteen, on each engine.
func TestQEMUDefect_HalfAHeaderIsThrownAway(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		request, cookie := w.request(CmdRead, 0, 0, 4096, nil)
		w.send(request[:10])
		h.until("ten bytes were received", func() bool { return h.conn(1).partial() == 10 })
		h.drain().End()
		w.send(request[10:])
		w.ok(w.await(cookie))
		w.alive()
	})
}

// Goal: a drain that meets a hundred bytes of a payload ends at once, and newcomers and the control plane are served meanwhile; QEMU's drain waits
// for the rest, and with it the monitor and all newcomers (drain (T-X2).md 4.9 b). Method: as it says, on each engine.
func TestQEMUDefect_HalfAPayloadStopsTheServer(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		request, cookie := w.request(CmdWrite, 0, 0, 0, fill(1, 4096))
		w.send(request[:compactHeader+100])
		h.until("a hundred bytes of payload were received", func() bool { return h.conn(1).partial() == compactHeader+100 })
		d := h.drain() // returns although the payload never comes
		second := h.dial(dialOptions{})
		require.Len(t, h.server.Connections(), 2, "the control plane answers")
		d.End()
		second.alive()
		w.send(request[compactHeader+100:])
		w.ok(w.await(cookie))
	})
}

// Goal: clients of an export that is not on the main loop come and go; QEMU 7 (T-X4).2.22 aborts when the first one goes (drain.md 4.9 c). Method: the
// export is moved, clients leave by DISC and by closing, on each engine.
func TestQEMUDefect_LeavingAnotherLoopAborts(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		require.NoError(t, h.graph.Move(t.Context(), h.node, h.another(engine)))
		for range 3 {
			w := h.dial(dialOptions{})
			w.alive()
			w.disconnect()
		}
		h.dial(dialOptions{}).conn.Close()
		for range 4 {
			h.closed()
		}
		h.dial(dialOptions{}).alive()
	})
}

// Goal: a thousand sections under load lose nothing and fail nothing, and each gap in what the clients are told is only time. Method:
// four clients keep 32 requests going and check what they read, while sections come one after the other, every third one held for a
// moment and every fifth one nested.
func TestThousandDrainsUnderLoad(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		h.loaded(func() {
			for i := range 1000 {
				d := h.drain()
				require.Zero(t, h.root.InFlight())
				if i%5 == 0 {
					h.drain().End()
				}
				if i%3 == 0 {
					h.onLoop(func() {})
				}
				d.End()
			}
		})
	})
}

// Goal: sections that follow each other without a pause let a client get on: what one held back is begun before the next one, which waits for
// it. Method: the end of a section and the beginning of another reach the loop at once, since it was busy meanwhile.
func TestSectionsBackToBack(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		d := h.drain()
		for i := range 10 {
			cookie := w.post(CmdWrite, 0, uint64(i)*512, 0, fill(byte(i), 512))
			h.until("it is parked", func() bool { return h.conn(1).blocked })
			busy := make(chan struct{})
			require.True(t, h.ctx.Post(func() { <-busy }))
			d.End()
			next := make(chan *blockcore.Drained)
			go func() { next <- h.drain() }()
			for h.root.Quiesced() == 0 {
				runtime.Gosched()
			}
			close(busy)
			d = <-next
			w.ok(w.await(cookie))
		}
		d.End()
		w.alive()
	})
}

// Goal: connections are resumed with one burst each a turn, so none waits for another's backlog. Method: one client parks 500 requests and
// another one a single one; when the section ends the single one is answered long before the last of the 500 is executed.
func TestResumeIsFair(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		greedy, modest := h.dial(dialOptions{}), h.dial(dialOptions{})
		d := h.drain()
		var stream bytes.Buffer
		for range 500 {
			request, _ := greedy.request(CmdWrite, 0, 0, 0, fill(1, 512))
			stream.Write(request)
		}
		greedy.send(stream.Bytes())
		modest.post(CmdFlush, 0, 0, 0, nil)
		h.until("both are parked", func() bool { return h.conn(1).blocked && h.conn(2).blocked })
		h.log.Take()
		d.End()
		modest.awaitAll()
		greedy.awaitAll()
		before, _, found := bytes.Cut([]byte(h.log.Text()), []byte("fake: flush\n"))
		require.True(t, found)
		require.LessOrEqual(t, bytes.Count(before, []byte("write [")), 2*3*burstInCompany, fmt.Sprintf("%d lines in all", len(before)))
	})
}
