package nbd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: short WRITEs that wait for the disk hold the memory that they are charged for, and not a piece each of what was received with
// them (REQ-9). Method: as many as may be in flight, sent one by one, held in the disk; the memory that is out; when all is answered, and the
// connection rests, there is none.
func TestShortWritesShareASlab(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		gate := blocktest.NewGate()
		h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate})
		w := h.dial(dialOptions{})
		for i := range RequestsDefault {
			w.post(CmdWrite, 0, uint64(i)*512, 0, fill(1, 512))
			gate.WaitHeld(i + 1)
		}
		held := h.pool.Stats().InUse
		gate.Open()
		require.LessOrEqual(t, held, int64(8*slabSize))
		for _, a := range w.awaitAll() {
			w.ok(a)
		}
		h.until("nothing is held", func() bool { return h.conn(0).in == nil })
		w.alive()
	})
}

// Goal: the connection of a client that waits for each answer holds nothing while the loop rests, and what comes otherwise afterwards comes through. Method:
// requests one by one, with and without a payload, after each of which there is no memory; then two together, and one in two pieces.
func TestOneRequestAtATimeHoldsNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine})
		w := h.dial(dialOptions{})
		for range 10 {
			w.write(512, fill(1, 512))
			require.Equal(t, fill(1, 512), w.read(512, 512))
			h.until("nothing is held", func() bool { return h.conn(0).in == nil && h.conn(0).bytes == 0 })
		}
		one, _ := w.request(CmdRead, 0, 0, 512, nil)
		two, _ := w.request(CmdWrite, 0, 0, 512, fill(2, 512))
		w.send(append(one, two...))
		three, _ := w.request(CmdWrite, 0, 1024, 512, fill(3, 512))
		w.send(three[:40])
		w.send(three[40:])
		for _, a := range w.awaitAll() {
			w.ok(a)
		}
		require.Equal(t, fill(3, 512), w.read(1024, 512))
	})
}
