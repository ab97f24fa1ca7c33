package nbd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: requests do not wait for one another: replies come in the order in which the disk is done, and a FLUSH is no barrier for a write that
// is not answered yet (ORD-1, ORD-6, CH-15). Method: a READ and a WRITE held in the disk; everything behind them is answered.
func TestOutOfOrder(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			gate := blocktest.NewGate()
			first := blockcore.Range{Length: 512}
			h.disk.Add(blocktest.Rule{Op: blocktest.OpRead, Range: first, Gate: gate})
			h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Range: first, Gate: gate})
			w := h.dial(dialOptions{style: style})
			slow := []uint64{w.post(CmdRead, 0, 0, 512, nil), w.post(CmdWrite, 0, 0, 0, fill(1, 512))}
			gate.WaitHeld(2)
			w.read(4096, 512)
			w.write(4096, fill(2, 512))
			w.flush()
			require.Contains(t, w.pending, slow[0])
			require.Contains(t, w.pending, slow[1])
			gate.Release(1)
			w.ok(w.await(slow[0]))
			require.Contains(t, w.pending, slow[1])
			gate.Open()
			w.ok(w.await(slow[1]))
			w.alive()
		})
	})
}

// Goal: MULTI_CONN is told where it is true: a FLUSH on one connection comes after the writes answered on all others, and a read sees them
// (ORD-2, ORD-4, ORD-7, FL-1, TF-1, TF-2, TF-B8). Method: four connections take turns to write, another one reads and flushes; the log of the disk
// has the flush behind all writes and none left to come.
func TestSeveralConnections(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		var clients []*wireClient
		for range 4 {
			w := h.dial(dialOptions{style: styleStructured})
			require.NotZero(t, w.remote.Flags&FlagCanMultiConn)
			clients = append(clients, w)
		}
		for i := range 20 {
			data := fill(byte(i), 3000)
			at := uint64(i * 4096)
			clients[i%4].write(at, data)
			sameBytes(t, data, clients[(i+1)%4].read(at, 3000))
		}
		h.log.Add("all answered")
		clients[0].flush()
		_, after, found := strings.Cut(h.log.Text(), "all answered\n")
		require.True(t, found)
		require.Equal(t, "fake: flush\nfake: flush: ok\n", after)
	})
	h := newHouse(t, houseOptions{export: ExportOptions{Shared: 1}})
	require.Zero(t, h.dial(dialOptions{}).remote.Flags&FlagCanMultiConn, "meant for one client")
}

// Goal: FLUSH and FUA fail when the disk says so, and an export that writes through makes each write durable unasked (FL-1, ORD-2, ORD-3,
// WR-1). Method: the log of the disk and its errors.
func TestDurability(t *testing.T) {
	h := newHouse(t, houseOptions{export: ExportOptions{WriteThrough: true}})
	w := h.dial(dialOptions{style: styleStructured})
	w.write(0, fill(1, 512))
	w.ok(w.do(CmdWriteZeroes, 0, 0, 512, nil))
	w.ok(w.do(CmdTrim, 0, 0, 512, nil))
	log := h.log.Take()
	require.Contains(t, log, "write [0x0, +0x200) fua: ok\n")
	require.Contains(t, log, "zero [0x0, +0x200) fua unmap: ok\n")
	require.Contains(t, log, "discard [0x0, +0x200): ok\nfake: flush\nfake: flush: ok\n")
	h.disk.Add(blocktest.Rule{Op: blocktest.OpFlush, Err: 5})
	w.refused(EIO, w.do(CmdFlush, 0, 0, 0, nil))
	w.refused(EIO, w.do(CmdTrim, CmdFlagFUA, 0, 512, nil))
	w.alive()
	h.disk.ClearRules()
}

// Goal: concurrent writes to one block tear nothing below the minimum block size (ORD-5). Method: pairs of overlapping writes in flight at
// once to a disk with blocks of 4096 bytes, by a client that knows nothing of them; every byte afterwards is of one of the two, and what lies
// beside them is untouched.
func TestOverlappingWrites(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{Limits: blockcore.Limits{Align: 4096}}})
		// Each step of a request suspends, so that they meet.
		h.disk.Add(blocktest.Rule{Op: blocktest.OpAny, Delay: time.Microsecond})
		w := h.dial(dialOptions{unaware: true})
		both := func(one, two uint64, first, second []byte) {
			a, _ := w.request(CmdWrite, 0, one, 0, first)
			b, _ := w.request(CmdWrite, 0, two, 0, second)
			w.send(append(a, b...))
			for _, answer := range w.awaitAll() {
				w.ok(answer)
			}
		}
		for i := range uint64(30) {
			base, first, second := i*8192, fill(byte(i), 50), fill(byte(i+100), 4000)
			both(base+100, base+300, first, second)
			want := make([]byte, 8192)
			copy(want[100:], first)
			copy(want[300:], second)
			sameBytes(t, want, w.read(base, 8192))

			y, z := bytes.Repeat([]byte("y"), 4096), bytes.Repeat([]byte("z"), 4096)
			both(base, base, y, z)
			require.Contains(t, []string{string(y), string(z)}, string(w.read(base, 4096)))
		}
	})
}
