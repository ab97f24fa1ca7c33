package nbd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: clients that rest keep nothing of the budget, also when the disk answered their last request long after their sockets were found empty: once each
// of them kept a step, and a long request beside them waited for ever. Method: as many as have two budgets in steps; a long request then.
func TestIdleConnectionsOfASlowDiskLeaveTheBudget(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		const limit = 4 * mib
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: 8 * mib}, server: ServerOptions{Limits: Limits{ProcessBytes: limit}}})
		for range 2 * limit / reserveStep {
			gate := blocktest.NewGate()
			h.disk.Add(blocktest.Rule{Op: blocktest.OpRead, Gate: gate, Times: 1})
			w := h.dial(dialOptions{})
			w.post(CmdRead, 0, 0, 4096, nil)
			gate.WaitHeld(1)
			gate.Open()
			w.awaitAll()
		}
		h.until("nothing is reserved", func() bool { return h.server.budget.used.Load() == 0 && h.export.budget.used.Load() == 0 })
		w := h.dial(dialOptions{})
		sameBytes(t, make([]byte, 2*mib), w.read(0, 2*mib))
	})
}

// Goal: short requests in flight count as what they are where the budget is scarce, and not as a step each: a long one beside them is served. Method: as many clients
// with one request in a disk that does not answer as have two budgets in steps; a long request of another client, at another place.
func TestBusyConnectionsCountWhatTheyHold(t *testing.T) {
	const limit = 4 * mib
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{SizeBytes: 8 * mib}, server: ServerOptions{Limits: Limits{ProcessBytes: limit}}})
	gate := blocktest.NewGate()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpRead, Range: blockcore.Range{Offset: 0, Length: 4096}, Gate: gate})
	const clients = 2 * limit / reserveStep
	for range clients {
		h.dial(dialOptions{}).post(CmdRead, 0, 0, 4096, nil)
	}
	gate.WaitHeld(clients)
	require.LessOrEqual(t, h.server.budget.used.Load(), int64(limit/2+clients*4096))
	w := h.dial(dialOptions{})
	sameBytes(t, make([]byte, 2*mib), w.read(4*mib, 2*mib))
	gate.Open()
}
