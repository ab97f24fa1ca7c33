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
// do and clients stand still for a shorter time. It is no more than that: what it does not reach, or not in time, the flush in the section
// does, which also reports errors.
func (g *Graph) flushAhead(ctx context.Context, nodes []*Node, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for _, n := range nodes {
		for range aheadMax {
			begin := time.Now()
			if !n.flushed(ctx) || time.Since(begin) < aheadShort {
				break
			}
		}
	}
}

// flushed flushes n once, and reports whether it may be worth while to do so again.
func (n *Node) flushed(ctx context.Context) bool {
	done := make(chan struct{})
	c := n.Context()
	if n.can.flusher == nil || !c.Post(func() { n.flushUnless(c, done) }) {
		return false
	}
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// flushUnless flushes n in the background, unless it has gone elsewhere, is closed or is quiet. On the loop of c.
func (n *Node) flushUnless(c *AioContext, done chan<- struct{}) {
	if n.Context() != c || n.closed || n.still || !n.Writable() {
		close(done)
		return
	}
	n.Background(func(t *Task) {
		_ = n.can.flusher.Flush(t)
		close(done)
	})
}
