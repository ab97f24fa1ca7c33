package blockcore

import "sync"

// bell tells those who wait for something to become quiet that it is worth looking again.
//
// INVARIANT: who waits takes the bell before it looks, and who makes something quiet does so before it rings; so
// either the look sees it, or the ring ends the wait.
type bell struct {
	// Guarded by mu.
	mu   sync.Mutex
	rung chan struct{} // closed by the next ring; nil while nobody has asked
}

// next returns what the next ring closes.
func (b *bell) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.rung
}

// ring ends the waits that there are. Safe from anywhere; it does not wait.
func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}
