package nbd

import "time"

// Farewell says what a client meets when its export goes. Two of the same kind and time are equal.
type Farewell struct {
	// Immutable.
	kind farewellKind
	most time.Duration // of a pause
}

type farewellKind uint8

const (
	restarts farewellKind = iota
	retires
	pauses
	cuts
	stays
)

var (
	// FarewellRestart: requests in flight are answered and the connection is closed without a word. QEMU with reconnect-delay and
	// the kernel come back and repeat what was not answered.
	FarewellRestart = Farewell{kind: restarts}
	// FarewellRetire: what comes from now on is answered with ESHUTDOWN until the client leaves, or for Limits.Retire.
	FarewellRetire = Farewell{kind: retires}
	// FarewellCut: connections are cut at once, requests in flight are finished, or ended early where the storage does not answer, and not answered, and
	// others not executed.
	FarewellCut = Farewell{kind: cuts}
	// FarewellNone: an export that has clients stays.
	FarewellNone = Farewell{kind: stays}
)

// AtStop is what clients meet when the whole server goes: no export will come that they could wait for.
func (f Farewell) AtStop() Farewell {
	if f.kind == pauses {
		return FarewellRestart
	}
	return f
}

// FarewellPause: requests in flight are answered, and the connection is held still, for most, until an export of that name takes it
// over; then it goes on. When none does it is FarewellRestart, which it also is where the server stops.
func FarewellPause(most time.Duration) Farewell { return Farewell{kind: pauses, most: most} }
