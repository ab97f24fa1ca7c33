package blockcore

import (
	"sync/atomic"

	"nbd-dataplane/internal/check"
)

// ThrottleMember is one Root or filter node in a group. Its requests wait in the order of their coming, reads and writes apart. For an
// owner that is in no group, a nil member may be asked all the same: it limits nothing.
//
// Analogous to QEMU's ThrottleGroupMember.
type ThrottleMember struct {
	// Immutable.
	name  string
	group *ThrottleGroup

	// Safe from anywhere.
	pending [throttleDirections]atomic.Int64 // requests inside of Admit that have been made to wait and do not run yet

	// Guarded by group.mu.
	ctx       *AioContext
	suspended int                                    // Suspend without Resume
	queues    [throttleDirections][]throttledRequest // waiting, in order
	released  []*Task                                // allowed to run; the loop has not been told or has not looked yet
}

// throttledRequest waits for its turn.
type throttledRequest struct {
	task  *Task
	bytes int64
}

// Name returns the name given to Join. Safe from anywhere.
func (m *ThrottleMember) Name() string { return m.name }

// Group returns the group. Safe from anywhere.
func (m *ThrottleMember) Group() *ThrottleGroup {
	if m == nil {
		return nil
	}
	return m.group
}

// Waiting returns how many requests wait, those included that may run and do not yet. Safe from anywhere.
func (m *ThrottleMember) Waiting() int {
	if m == nil {
		return 0
	}
	return int(m.pending[ThrottleRead].Load() + m.pending[ThrottleWrite].Load())
}

// Admit suspends t until the limits let its request run, and accounts it. A request of no bytes, such as a flush, is neither held up nor
// counted. A request that is made to wait keeps the others of its direction behind it.
func (m *ThrottleMember) Admit(t *Task, d ThrottleDirection, bytes int64) {
	if m == nil || bytes == 0 || !m.group.enabled.Load() && m.pending[d].Load() == 0 {
		return
	}
	if check.Enabled {
		check.Invariant(bytes > 0, "throttle member %q: a request of %d bytes", m.name, bytes)
	}
	var after throttleActions
	if m.enter(t, d, bytes, &after) {
		return
	}
	after.carryOut(t.ctx)
	t.suspend()
	m.pending[d].Add(-1)
}

// enter accounts a request that may run at once, or puts it into the queue and reports false.
func (m *ThrottleMember) enter(t *Task, d ThrottleDirection, bytes int64, after *throttleActions) bool {
	g := m.group
	g.lock()
	defer g.mu.Unlock()
	check.Invariant(t.ctx == m.ctx, "throttle member %q: a request on a context that it is not on", m.name)
	if m.pending[d].Load() == 0 && (m.suspended > 0 || g.turns[d].timer == nil && g.buckets.wait(d) == 0) {
		g.buckets.account(d, bytes)
		return true
	}
	m.pending[d].Add(1)
	m.queues[d] = append(m.queues[d], throttledRequest{t, bytes})
	if m.suspended > 0 {
		m.release(d, after)
	}
	g.schedule(d, after)
	g.verify()
	return false
}

// release accounts the request that waits longest and has it run.
func (m *ThrottleMember) release(d ThrottleDirection, after *throttleActions) {
	q := m.queues[d]
	first := q[0]
	q[0] = throttledRequest{}
	m.queues[d] = q[1:]
	m.group.buckets.account(d, first.bytes)
	m.wakeLater(first.task, after)
}

// Suspend takes the limits off m and has all its requests run at once; those that follow do not wait. They are
// accounted, and so the other members wait longer. Calls nest. Safe from anywhere.
func (m *ThrottleMember) Suspend() {
	if m == nil {
		return
	}
	g := m.group
	var after throttleActions
	g.lock()
	m.suspended++
	for d := range throttleDirections {
		for len(m.queues[d]) > 0 {
			m.release(d, &after)
		}
	}
	for d := range throttleDirections {
		if a := g.turns[d].timer; a != nil && a.member == m {
			g.disarm(d, &after)
		}
		g.schedule(d, &after)
	}
	g.verify()
	g.mu.Unlock()
	after.carryOut(nil)
}

// dismiss has the requests go on that wait and are unwanted, out of their turn and not accounted: their owner does not execute them. On
// the loop of m only.
func (m *ThrottleMember) dismiss(unwanted func(*Task) bool) {
	if m == nil || m.Waiting() == 0 {
		return
	}
	g := m.group
	var after throttleActions
	g.lock()
	for d := range throttleDirections {
		waiting := m.queues[d][:0]
		for _, q := range m.queues[d] {
			if !unwanted(q.task) {
				waiting = append(waiting, q)
				continue
			}
			m.wakeLater(q.task, &after)
		}
		clear(m.queues[d][len(waiting):])
		m.queues[d] = waiting
		if a := g.turns[d].timer; a != nil && a.member == m {
			g.disarm(d, &after) // it was set for the first in the queue
		}
		g.schedule(d, &after)
	}
	g.verify()
	g.mu.Unlock()
	after.carryOut(m.ctx)
}

// wakeLater has a request that waited run.
func (m *ThrottleMember) wakeLater(t *Task, after *throttleActions) {
	if len(m.released) == 0 { // otherwise the loop has been told
		after.wake = append(after.wake, throttleWake{m, m.ctx})
	}
	m.released = append(m.released, t)
}

// Resume ends one Suspend. Safe from anywhere.
func (m *ThrottleMember) Resume() {
	if m == nil {
		return
	}
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	check.Invariant(m.suspended > 0, "throttle member %q is resumed and was not suspended", m.name)
	m.suspended--
}

// Move takes m to another context. It is suspended and nobody waits. Safe from anywhere.
func (m *ThrottleMember) Move(ctx *AioContext) {
	if m == nil {
		return
	}
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	check.Invariant(m.suspended > 0 && m.Waiting() == 0, "throttle member %q moves while %d requests wait, suspended %d times", m.name, m.Waiting(), m.suspended)
	m.ctx = ctx
}

// Leave takes m out of its group. Nobody waits and nobody follows. The others' turns stay as they are. Safe from anywhere.
func (m *ThrottleMember) Leave() {
	if m == nil {
		return
	}
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	check.Invariant(m.Waiting() == 0, "throttle member %q leaves while %d requests wait", m.name, m.Waiting())
	m.group.remove(m)
	m.group.verify()
}

// wakeReleased has the released requests resumed, in order. It is asked for once by whoever releases the first, so they are there, and
// m has not moved. On the loop of ctx only.
func (m *ThrottleMember) wakeReleased(ctx *AioContext) {
	m.group.mu.Lock()
	check.Invariant(m.ctx == ctx && len(m.released) > 0, "throttle member %q: %d requests to be woken by the wrong loop or twice", m.name, len(m.released))
	tasks := m.released
	m.released = nil
	m.group.mu.Unlock()
	for _, t := range tasks {
		t.wakeSoon()
	}
}
