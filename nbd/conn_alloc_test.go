package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/check"
)

// Goal: in the steady state a request allocates nothing. Method: ten thousand requests of 4 KiB at depth 16, by a client that allocates nothing
// either, counted by the runtime; reads and writes, in each style, on each engine, on a disk that suspends every request.
func TestRequestsDoNotAllocate(t *testing.T) {
	const depth, rounds = 16, 10_000 / 16
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			for _, command := range []Command{CmdRead, CmdWrite} {
				h := newHouse(t, houseOptions{engine: engine, driver: &yieldingDisk{}})
				w := h.dial(dialOptions{style: style})
				batch, replies := steadyBatch(w, command, depth)
				round := func() {
					_, err := w.conn.Write(batch)
					if err == nil {
						_, err = io.ReadFull(w.conn, replies)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				for range 100 {
					round()
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				for range rounds {
					round()
				}
				runtime.ReadMemStats(&after)
				each := float64(after.Mallocs-before.Mallocs) / (depth * rounds)
				if check.Enabled {
					each -= 20 // the assertions of that build keep books of their own
				}
				require.Less(t, each, 0.02, "%v: allocations a request", command)
				w.conn.Close()
			}
		})
	})
}

// steadyBatch is depth requests as one piece, and room for their replies.
func steadyBatch(w *wireClient, command Command, depth int) (batch, replies []byte) {
	length := map[replyStyle]int{styleSimple: simpleReply, styleStructured: structuredReply, styleExtended: extendedReply}[w.style]
	for i := range depth {
		h := header{command: command, cookie: uint64(i), offset: uint64(i) * 4096, length: 4096}
		var payload []byte
		if command == CmdWrite {
			payload = bytes.Repeat([]byte{byte(i)}, 4096)
			if w.style == styleExtended {
				h.flags = CmdFlagPayloadLen
			}
		}
		batch = append(append(batch, encodeHeader(w.style, h)...), payload...)
	}
	if command == CmdRead {
		length += 4096
		if w.style != styleSimple {
			length += 8
		}
	}
	return batch, make([]byte, depth*length)
}

// yieldingDisk is 1 MiB that is nowhere; each request lets the others run first.
type yieldingDisk struct{}

func (*yieldingDisk) Size() int64 { return mib }

func (*yieldingDisk) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	t.Yield()
	binary.BigEndian.PutUint64(p, uint64(off))
	return nil
}

func (*yieldingDisk) WriteAt(t *blockcore.Task, _ []byte, _ int64, _ blockcore.WriteFlags) error {
	t.Yield()
	return nil
}

func (*yieldingDisk) Close(*blockcore.Task) error { return nil }

// Goal: a connection that rests holds next to nothing: no buffer, no part of a budget, little of the heap. Method: many clients each do a bit of everything,
// and then nothing; what is out of the pool is what the loop keeps anyway.
func TestIdleConnectionsHoldNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		for range 100 {
			serveFully(h.dial(dialOptions{style: styleStructured}))
		}
		h.until("all rest", func() bool {
			for id := range uint64(100) {
				c := h.conn(id + 1)
				if c.in != nil || c.reserved != 0 || c.out.held != 0 || cap(c.out.headers) > headerBlock {
					return false
				}
			}
			return true
		})
		kept := int64(0)
		h.onLoop(func() { h.ctx.Buffers().Drain(); kept = int64(len(h.export.lane.slabs)) * slabSize })
		require.Equal(t, kept, h.pool.Stats().InUse)
	})
}
