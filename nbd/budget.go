package nbd

import (
	"sync"
	"sync/atomic"
)

// budget counts bytes held for requests against a bound that several connections share.
type budget struct {
	// Immutable.
	max int64

	// Safe from anywhere.
	used    atomic.Int64
	waiting atomic.Bool // waiters is not empty

	// Guarded by mu.
	mu      sync.Mutex
	waiters map[*Conn]*Export // with the export that it is a client of, or was
}

func newBudget(limit int64) *budget { return &budget{max: limit} }

// take reserves n bytes, or reports false. alone: they are for a request that is alone on its connection.
//
// INVARIANT: what is refused was never counted, not even for a moment: another connection could be refused because of it,
// and nobody would wake that one.
func (b *budget) take(n int64, alone bool) bool {
	for {
		used := b.used.Load()
		if !b.admits(used, n, alone) {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// admits is the rule. A request that is alone may exceed the bound, so that those who sit on their share starve nobody;
// a long one up to twice the bound only, and then it waits for the stalled to be cut off (stall.go). One that
// is longer than the bound itself could wait for ever: whoever sets such a bound means it for the others.
func (b *budget) admits(used, n int64, alone bool) bool {
	switch {
	case used+n <= b.max:
		return true
	case !alone:
		return false
	case n <= reserveStep || n > b.max:
		return true
	}
	return used+n <= 2*b.max
}

// plenty reports that n bytes more leave half of it free.
func (b *budget) plenty(n int64) bool { return b.used.Load()+n <= b.max/2 }

// carry reserves n bytes that another budget has let in.
func (b *budget) carry(n int64) { b.used.Add(n) }

// give returns n bytes and wakes the connections that wait for room.
func (b *budget) give(n int64) {
	b.used.Add(-n)
	if b.waiting.Load() {
		b.wakeAll()
	}
}

// await has c woken when there may be room for the n bytes that it was refused. It looks once more itself, since
// room may have been made between the refusal and now. It looks for n bytes: for less c would come again and again.
func (b *budget) await(c *Conn, n int64, alone bool) {
	b.mu.Lock()
	if b.waiters == nil {
		b.waiters = map[*Conn]*Export{}
	}
	b.waiters[c] = c.export
	b.waiting.Store(true)
	b.mu.Unlock()
	if b.admits(b.used.Load(), n, alone) {
		b.wakeAll()
	}
}

func (b *budget) wakeAll() {
	b.mu.Lock()
	woken := b.waiters
	b.waiters = nil
	b.waiting.Store(false)
	b.mu.Unlock()
	for c, e := range woken {
		e.post(c.roomAgain)
	}
}
