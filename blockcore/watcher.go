package blockcore

import "nbd-dataplane/internal/check"

// direction is that of the data: in or out.
type direction uint8

const (
	directionIn direction = iota
	directionOut
)

// Handler is told that a file descriptor is ready. On the loop, in no Task.
type Handler interface {
	// ReadyIn is called when there may be something to read, and once in each turn while the Watcher
	// is hot. It reports whether there was.
	ReadyIn() bool
	// ReadyOut is called when there may be room to write, after ArmOut.
	ReadyOut()
}

// Watcher waits on behalf of one file descriptor, a socket as a rule. Owned by the context.
//
// While it is hot the handler is simply called in each turn, since asking the socket costs
// less than having the kernel announce it; before the loop sleeps, what is hot is armed in the engine and
// stops being hot.
//
// Analogous to QEMU's AioHandler.
type Watcher struct {
	// Immutable.
	ctx     *AioContext
	fd      int
	handler Handler
	index   uint32

	// Owned by the context.
	isHot  bool
	listed bool    // in the context's list of hot ones, where cooled ones stay until the next turn
	armed  [2]bool // by direction: the engine will call
	early  [2]bool // by direction: ready while not armed (engines that report edges)
	known  bool    // the engine has fd in its tables
	closed bool
}

// Watch makes a Watcher of fd, which must be in non-blocking mode and open until Close. On the loop only.
func (c *AioContext) Watch(fd int, h Handler) *Watcher {
	w := &Watcher{ctx: c, fd: fd, handler: h}
	w.index = c.watchers.add(w)
	return w
}

// Heat has ReadyIn called in every turn from the next one on, until the loop sleeps and something arrives, and
// so on until Cool.
func (w *Watcher) Heat() {
	if w.isHot || w.closed || w.armed[directionIn] {
		return
	}
	w.isHot = true
	if !w.listed {
		w.listed = true
		w.ctx.hot = append(w.ctx.hot, w)
	}
}

// Cool ends the interest in reading. A call of ReadyIn may still come when the engine is armed.
func (w *Watcher) Cool() { w.isHot = false }

// ArmIn has ReadyIn called when the kernel says that there is something to read, and in no turn before that, until Heat or Cool. It is for who would find
// nothing if he looked.
func (w *Watcher) ArmIn() {
	w.isHot = false
	if !w.closed && !w.armed[directionIn] {
		w.ctx.engine.arm(w, directionIn)
	}
}

// TellsOnce reports whether the engine tells of what can be read when it comes and not again: then who has not read until there was nothing may
// never hear of it, as of the end of a stream that came with its last bytes.
func (c *AioContext) TellsOnce() bool {
	_, edges := c.engine.(*threadsEngine)
	return edges
}

// ArmOut has ReadyOut called once when there is room to write.
func (w *Watcher) ArmOut() {
	if !w.closed && !w.armed[directionOut] {
		w.ctx.engine.arm(w, directionOut)
	}
}

// Close ends all interest; no call follows. The caller closes fd afterwards.
func (w *Watcher) Close() {
	if w.closed {
		return
	}
	w.closed = true
	w.isHot = false
	w.ctx.engine.disarm(w)
}

// fire is called by the engine when what was armed has happened.
func (w *Watcher) fire(d direction) {
	w.armed[d] = false
	switch {
	case w.closed:
	case d == directionIn:
		w.handler.ReadyIn()
	default:
		w.handler.ReadyOut()
	}
}

// release frees the slot; the kernel knows nothing of w any more.
func (w *Watcher) release() {
	if check.Enabled {
		check.Invariant(w.closed && !w.armed[directionIn] && !w.armed[directionOut], "a Watcher in use was released")
	}
	w.ctx.watchers.remove(w.index)
}

// runHot calls the handlers of all hot Watchers and reports whether one found something. Those that
// were cooled, and closed ones, fall out of the list here.
func (c *AioContext) runHot() bool {
	worked := false
	kept := 0
	n := len(c.hot) // those that heat up meanwhile are kept for the next turn
	for i := 0; i < n; i++ {
		w := c.hot[i]
		if w.isHot && w.handler.ReadyIn() {
			worked = true
		}
		if w.isHot {
			c.hot[kept] = w
			kept++
			continue
		}
		w.listed = false
	}
	for i := n; i < len(c.hot); i++ {
		c.hot[kept] = c.hot[i]
		kept++
	}
	clear(c.hot[kept:])
	c.hot = c.hot[:kept]
	return worked
}

// armHot hands all hot Watchers to the engine, since the loop is about to sleep.
func (c *AioContext) armHot() {
	for i, w := range c.hot {
		c.hot[i] = nil
		w.listed = false
		if w.isHot {
			w.isHot = false
			c.engine.arm(w, directionIn)
		}
	}
	c.hot = c.hot[:0]
}
