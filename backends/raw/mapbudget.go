package raw

import "sync/atomic"

// mappedMax is how much of files the process maps at most. Pages that are mapped count as resident memory of the process,
// and when memory runs out the kernel looks for whoever has most of it. Two GiB have page tables of 4 MiB.
const mappedMax = 2 << 30

// mapBudget bounds what is mapped. Safe from anywhere.
type mapBudget struct {
	// Immutable.
	max int64

	// Safe from anywhere.
	used atomic.Int64
}

// mapped is what all Files of the process have mapped together.
var mapped = mapBudget{max: mappedMax}

// take reports whether n bytes more may be mapped, and counts them.
func (b *mapBudget) take(n int64) bool {
	if b.used.Add(n) <= b.max {
		return true
	}
	b.used.Add(-n)
	return false
}

// put gives n bytes back.
func (b *mapBudget) put(n int64) { b.used.Add(-n) }
