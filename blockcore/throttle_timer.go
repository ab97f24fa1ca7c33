package blockcore

import "time"

// throttleTimer lets the first request of a member run when its time has come. It is armed for as long as it is the one of its
// direction's turn; afterwards it does nothing.
type throttleTimer struct {
	// Immutable.
	member    *ThrottleMember
	ctx       *AioContext
	direction ThrottleDirection
	at        time.Duration // by the group's clock

	// Owned by the context.
	timer *Timer
}

// start sets the context's timer. On its loop only.
func (a *throttleTimer) start() {
	g := a.member.group
	g.mu.Lock()
	armed := g.turns[a.direction].timer == a
	wait := a.at - g.clock.now()
	g.mu.Unlock()
	if armed {
		a.timer = a.ctx.After(max(wait, 0), a.fire)
	}
}

// stop takes the context's timer back. On its loop only.
func (a *throttleTimer) stop() {
	if a.timer != nil {
		a.timer.Stop()
	}
}

// fire lets the request run and schedules the next. On the loop only.
func (a *throttleTimer) fire() {
	g := a.member.group
	var after throttleActions
	g.lock()
	if g.turns[a.direction].timer == a {
		g.turns[a.direction].timer = nil
		g.grant(a.member, a.direction, &after)
		g.schedule(a.direction, &after)
		g.verify()
	}
	g.mu.Unlock()
	after.carryOut(a.ctx)
}

// throttleActions are what was decided under a group's mutex and is done on loops after it has been released.
type throttleActions struct {
	start, stop [throttleDirections]*throttleTimer
	wake        []throttleWake
}

type throttleWake struct {
	member *ThrottleMember
	ctx    *AioContext
}

// carryOut does what belongs to the loop on, where the caller is, and posts the rest. nil = the caller is on no loop.
func (w *throttleActions) carryOut(on *AioContext) {
	for _, a := range w.stop {
		if a != nil {
			a.ctx.throttlePost(on, a.stop)
		}
	}
	for _, a := range w.start {
		if a != nil {
			a.ctx.throttlePost(on, a.start)
		}
	}
	for _, k := range w.wake {
		k.ctx.throttlePost(on, func() { k.member.wakeReleased(k.ctx) })
	}
}

// throttlePost runs fn now if the caller is on the loop of c, and has it run there otherwise.
func (c *AioContext) throttlePost(on *AioContext, fn func()) {
	if c == on {
		fn()
		return
	}
	c.postAlways(fn)
}
