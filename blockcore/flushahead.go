package blockcore

import (
	"context"
	"time"
)

const (
	// aheadMax is how often a node is flushed ahead: each flush leaves to the next one what was written while it ran.
	aheadMax = 4
	// aheadShort is a flush that found next to nothing to write.
	aheadShort = 3 * time.Millisecond
)

// flushAhead makes durable, before a section begins, what was acknowledged until now, so that a flush in the section has little to
// do and clients stand still for a shorter time. It is no more than that: what it does not reach, or not in the time of most, the flush in the
// section does, which also reports errors. It fails when ctx ends.
func (g *Graph) flushAhead(ctx context.Context, d *Drained, most time.Duration) error {
	patience, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	g.aheadNow(d, true)
	defer g.aheadNow(d, false)
	for _, n := range d.nodes {
		for range aheadMax {
			begin := time.Now()
			if !n.flushed(patience) || time.Since(begin) < aheadShort {
				break
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return g.gaveUp(d, err)
	}
	return nil
}

// aheadNow notes whether d waits for its nodes to be flushed ahead.
func (g *Graph) aheadNow(d *Drained, now bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d.ahead = now
}

// flushed flushes n once, and reports whether it may be worth while to do so again.
func (n *Node) flushed(ctx context.Context) bool {
	return n.can.keeps && n.ahead(ctx, opFlush, func(t *Task) { _ = n.can.flusher.Flush(t) })
}

// ahead has n do something in the background, before a section, and waits for it until ctx ends, or does not because n is gone. It reports whether the wait is over.
func (n *Node) ahead(ctx context.Context, op string, work func(t *Task)) bool {
	done := make(chan struct{})
	c := n.Context()
	if !c.Post(func() { n.aheadUnless(c, op, done, work) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// aheadUnless does work in the background, unless n has gone elsewhere, is closed or is quiet. On the loop of c.
func (n *Node) aheadUnless(c *AioContext, op string, done chan<- struct{}, work func(t *Task)) {
	if n.Context() != c || n.closed || n.still || !n.Writable() {
		close(done)
		return
	}
	n.Background(op, func(t *Task) {
		work(t)
		close(done)
	})
}
