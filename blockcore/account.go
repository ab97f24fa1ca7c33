package blockcore

import (
	"sync/atomic"
	"time"
)

// RequestKind is what QEMU counts requests by. Zeroing is a write.
type RequestKind uint8

// The kinds of requests.
const (
	KindRead RequestKind = iota
	KindWrite
	KindFlush
	KindDiscard
	requestKinds
)

// Tally is what became of the requests of one kind.
type Tally struct {
	Done    uint64        // succeeded
	Failed  uint64        // got an error from the driver
	Invalid uint64        // reached no driver: outside of the node, or not permitted
	Bytes   uint64        // of those done
	Time    time.Duration // that those done have taken, added up
}

// NodeStats counts what a node was asked for.
type NodeStats struct {
	Of           [requestKinds]Tally
	Zeroes       uint64         // writes of zeroes, among those done
	HighestWrite int64          // end of the highest range that was to be written, in bytes
	Idle         time.Duration  // since a request was last done; negative = none was
	Discards     *DiscardCounts // nil = the driver does not count
}

// account is how a node counts. A request is counted when it ends, by one look at the clock: it began when the loop looked before, which
// was at the end of another request or at the beginning of the turn. So the time of a request that does not suspend includes that
// of reading it from its socket.
type account struct {
	// Owned by the context.
	of           [requestKinds]Tally
	zeroes       uint64
	highestWrite int64
	last         time.Duration // when a request was last done, by the clock of all loops; 0 = none was

	// Safe from anywhere.
	invalid [requestKinds]atomic.Uint64
}

// ended counts a request that began at since, and returns its result.
func (a *account) ended(t *Task, kind RequestKind, since time.Duration, bytes int64, err error) error {
	tally := &a.of[kind]
	if err != nil {
		tally.Failed++
		return err
	}
	now := t.ctx.look()
	tally.Done++
	tally.Bytes += uint64(bytes)
	tally.Time += now - since
	a.last = now
	return nil
}

// written notes the end of a range that was asked to be changed.
func (a *account) written(r Range) { a.highestWrite = max(a.highestWrite, r.End()) }

// refused counts a request that does not reach the driver, and returns why.
func (n *Node) refused(kind RequestKind, err error) error {
	n.account.invalid[kind].Add(1)
	return err
}

// look reads the clock. On the loop.
func (c *AioContext) look() time.Duration {
	c.latest = c.clock.now()
	return c.latest
}

// Refused counts a request that the owner above has refused before it reached e. Safe from anywhere.
func (e *Edge) Refused(kind RequestKind) { _ = e.child.Load().refused(kind, nil) }

// Sent counts a read that was answered by way of CachedFile, past the driver. It began at since, by t.Latest.
func (e *Edge) Sent(t *Task, since time.Duration, bytes int64) {
	n := e.child.Load()
	_ = n.account.ended(t, KindRead, since, bytes, nil)
	if n.can.sender != nil {
		n.can.sender.Sent(t, since, bytes)
	}
}

// Stats returns the counts. Not on a loop.
func (n *Node) Stats() (stats NodeStats, err error) {
	for {
		c, here := n.Context(), false
		err = c.Do(func(t *Task) error {
			if here = n.Context() == c; here {
				stats = n.counted(t)
			}
			return nil
		})
		if here || err != nil && n.Context() == c {
			return stats, err
		}
	}
}

// counted is a copy of the counts. On the loop.
func (n *Node) counted(t *Task) NodeStats {
	a := &n.account
	s := NodeStats{Of: a.of, Zeroes: a.zeroes, HighestWrite: a.highestWrite, Idle: -1}
	for kind := range a.invalid {
		s.Of[kind].Invalid = a.invalid[kind].Load()
	}
	if a.last != 0 {
		s.Idle = max(t.ctx.look()-a.last, 0)
	}
	if n.can.counter != nil {
		counts := n.can.counter.DiscardCounts()
		s.Discards = &counts
	}
	return s
}
