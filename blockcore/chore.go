package blockcore

import "time"

// ChorePolicy says what becomes of a Chore that is due later when its node is drained.
type ChorePolicy uint8

const (
	// ChoreRun: it is done now, counted, and the drain waits for it.
	ChoreRun ChorePolicy = iota
	// ChorePostpone: it waits for the rest of its time when the section ends.
	ChorePostpone
	// ChoreCancel: it is forgotten.
	ChoreCancel
)

// Chore is work that a driver does by itself after a while: a delayed flush, a clean-up. Its node stops it, or has it done, when
// a drained section begins, and counts it while it runs. Owned by the context.
type Chore struct {
	// Immutable.
	node   *Node
	policy ChorePolicy
	work   func(t *Task)

	// Owned by the context.
	timer   *Timer        // nil = not running
	due     time.Duration // of timer, by the context's clock
	waiting time.Duration // what is left of a postponed one's time; negative = it is not wanted
}

// choreList is the chores of one node. Owned by the context.
type choreList struct{ all []*Chore }

// NewChore registers work that is done when After says so. On the loop.
func (n *Node) NewChore(policy ChorePolicy, work func(t *Task)) *Chore {
	c := &Chore{node: n, policy: policy, work: work, waiting: -1}
	n.chores.all = append(n.chores.all, c)
	return c
}

// After has the work done when d has passed; asking again replaces the time. In a drained section the time begins to pass when the
// section ends. On the loop.
func (c *Chore) After(d time.Duration) {
	c.Cancel()
	if c.node.still {
		c.waiting = d
		return
	}
	c.arm(d)
}

// Cancel forgets that the work was wanted. What has begun goes on. On the loop.
func (c *Chore) Cancel() {
	c.waiting = -1
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// Pending reports whether the work is wanted and has not begun. On the loop.
func (c *Chore) Pending() bool { return c.timer != nil || c.waiting >= 0 }

func (c *Chore) arm(d time.Duration) {
	ctx := c.node.Context()
	c.due = ctx.clock.now() + d
	c.timer = ctx.After(d, c.begin)
}

// begin does the work as a Task that its node counts.
func (c *Chore) begin() {
	c.timer = nil
	c.node.Background("background work", c.work)
}

// stop does to each pending chore what its policy says.
func (l *choreList) stop() {
	for _, c := range l.all {
		if c.timer == nil {
			continue
		}
		left := max(c.due-c.node.Context().clock.now(), 0)
		c.Cancel()
		switch c.policy {
		case ChoreRun:
			c.begin()
		case ChorePostpone:
			c.waiting = left
		}
	}
}

func (l *choreList) resume() {
	for _, c := range l.all {
		if c.waiting >= 0 {
			left := c.waiting
			c.waiting = -1
			c.arm(left)
		}
	}
}

// detach stops what still runs by the clock of a loop that is left. In a drained section nothing does, but a node that nobody owns
// moves without one.
func (l *choreList) detach() {
	for _, c := range l.all {
		if c.timer != nil {
			c.waiting = max(c.due-c.node.Context().clock.now(), 0)
			c.timer.Stop()
			c.timer = nil
		}
	}
}
