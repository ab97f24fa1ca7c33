package blockcore

import "time"

// turn does once all that is at hand and reports whether there was anything.
//
//	posted work -> timers -> hot sockets -> ready Tasks -> submit -> completions -> turn ends
func (c *AioContext) turn() bool {
	c.latest = c.clock.now()
	worked := c.runPosted()
	if len(c.timers) > 0 && c.runTimers() {
		worked = true
	}
	if c.runHot() {
		worked = true
	}
	if c.runReady() {
		worked = true
	}
	c.engine.submit()
	if c.engine.reap() {
		worked = true
	}
	if c.runReady() {
		worked = true
	}
	c.endTurn()
	return worked
}

func (c *AioContext) runPosted() bool {
	if !c.hasPosted.Load() {
		return false
	}
	c.mu.Lock()
	batch := c.posted
	c.posted = nil
	c.hasPosted.Store(false)
	c.mu.Unlock()
	for _, fn := range batch {
		fn()
		c.pause()
	}
	return len(batch) > 0
}

// runReady resumes the Tasks that are ready now. Those that become ready meanwhile wait for the
// next call, so that a Task that yields lets everybody else run.
func (c *AioContext) runReady() bool {
	if len(c.ready) == 0 {
		return false
	}
	c.running, c.ready = c.ready, c.running[:0]
	for i, t := range c.running {
		c.running[i] = nil
		c.resume(t)
		c.pause()
	}
	return true
}

// pause is where the loop of a Stepped stops.
func (c *AioContext) pause() {
	if c.between != nil {
		c.between()
	}
}

func (c *AioContext) endTurn() {
	for i := 0; i < len(c.turnEnds); i++ {
		c.turnEnds[i].TurnEnd()
	}
	clear(c.turnEnds)
	c.turnEnds = c.turnEnds[:0]
}

// rest looks for work for a while, where that pays, and then sleeps until there is some.
func (c *AioContext) rest() {
	begin := c.clock.now()
	now, looks := begin, c.looks(begin)
	if looks {
		found := c.lookAround(begin)
		now = c.clock.now()
		if found {
			c.polling.adjust(now - begin)
			return
		}
	}
	c.armHot()
	c.sleeping.Store(true)
	if c.hasPosted.Load() || len(c.ready) > 0 {
		c.sleeping.Store(false)
		return
	}
	rested := c.sleep(now) - begin
	c.sleeping.Store(false)
	c.engine.reap()
	if rested > restCounted {
		c.contest.leaveOut(rested - restCounted)
	}
	if looks {
		c.polling.adjust(rested)
	}
}

// looks reports whether the loop looks for work before it sleeps.
func (c *AioContext) looks(now time.Duration) bool {
	if c.polling.max == 0 {
		return false
	}
	if c.contest.note(now, c.begun) {
		c.polling.current = c.polling.max
	}
	return c.contest.way() == wayLook
}

// shortWaitMax is how long a wait keeps its P. Within that time the next request of a busy client
// has come; one of 10 ms would have the Go runtime interrupt the loop a hundred times a second. Nor is it shorter: a limit before the kernel's
// next tick is a timer to be set and taken back in each wait, which in a virtual machine costs some 3 us.
const shortWaitMax = 8 * time.Millisecond

// sleep waits in the engine, shortly first, and patiently when nothing has come; it returns when that ended.
func (c *AioContext) sleep(begin time.Duration) (end time.Duration) {
	limit := c.sleepMax(begin)
	if limit >= 0 && limit <= shortWaitMax {
		c.engine.wait(limit, false)
		return c.clock.now()
	}
	c.engine.wait(shortWaitMax, false)
	end = c.clock.now()
	waited := end - begin
	if waited < shortWaitMax || c.engine.pollReady() || !c.sleeping.Load() {
		return end
	}
	if limit >= 0 {
		limit = max(limit-waited, 0)
	}
	c.engine.wait(limit, true)
	return c.clock.now()
}

// lookAround polls, by looking at memory and at the hot sockets, until something is there or the time that
// polling is worth is over.
func (c *AioContext) lookAround(begin time.Duration) bool {
	limit := c.polling.current
	if limit <= 0 || c.lulls > 0 {
		return false
	}
	if d, ok := c.timers.next(); ok {
		limit = min(limit, d-begin)
	}
	for {
		if c.hasPosted.Load() || c.engine.pollReady() || c.runHot() {
			return true
		}
		if c.clock.now()-begin >= limit {
			return false
		}
	}
}

// sleepMax is how long the loop may sleep from now on: until the next timer; negative = without limit.
func (c *AioContext) sleepMax(now time.Duration) time.Duration {
	d, ok := c.timers.next()
	if !ok {
		return -1
	}
	return max(d-now, 0)
}
