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
