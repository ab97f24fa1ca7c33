package blocktest

import (
	"sync"

	"nbd-dataplane/blockcore"
)

// Gate holds requests until the test lets them go. It is closed when it is made.
type Gate struct {
	// Guarded by mu.
	mu      sync.Mutex
	held    []*heldRequest // in the order of their coming
	open    bool
	changed chan struct{} // closed, and replaced, when held or open changes
}

// heldRequest is one request at a Gate.
type heldRequest struct {
	// Immutable.
	ctx *blockcore.AioContext

	// Owned by the context.
	queue    blockcore.WaitQueue
	released bool
}

// NewGate returns a closed gate.
func NewGate() *Gate { return &Gate{changed: make(chan struct{})} }

// Held returns how many requests are held now. Safe from anywhere.
func (g *Gate) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}

// WaitHeld waits until n requests or more are held. Not on a loop.
func (g *Gate) WaitHeld(n int) {
	for {
		g.mu.Lock()
		enough, changed := len(g.held) >= n, g.changed
		g.mu.Unlock()
		if enough {
			return
		}
		<-changed
	}
}

// Release lets the n requests go that have been held longest, or as many as there are. Safe from anywhere.
func (g *Gate) Release(n int) {
	g.mu.Lock()
	n = min(n, len(g.held))
	going := g.held[:n:n]
	g.held = g.held[n:]
	g.notifyLocked()
	g.mu.Unlock()
	for _, h := range going {
		h.ctx.Post(func() {
			h.released = true
			h.queue.WakeOne()
		})
	}
}

// Open lets all requests go, those to come too. Safe from anywhere.
func (g *Gate) Open() {
	g.mu.Lock()
	g.open = true
	n := len(g.held)
	g.mu.Unlock()
	g.Release(n)
}

// Close holds the requests that come from now on. Safe from anywhere.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open = false
}

// pass suspends t until it is let go.
func (g *Gate) pass(t *blockcore.Task) {
	h := g.arrive(t)
	if h == nil {
		return
	}
	for !h.released {
		t.Wait(&h.queue)
	}
}

func (g *Gate) arrive(t *blockcore.Task) *heldRequest {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return nil
	}
	h := &heldRequest{ctx: t.Context()}
	g.held = append(g.held, h)
	g.notifyLocked()
	return h
}

func (g *Gate) notifyLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}
