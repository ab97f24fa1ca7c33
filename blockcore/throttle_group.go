package blockcore

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nbd-dataplane/internal/check"
)

// ThrottleGroup shares limits among its members, in turn. Members may be on different contexts.
//
// Reads and writes have queues of their own. In each direction a single timer at most is armed in the whole group, on the
// context of the member whose turn is next; when it fires, the first request of that member runs and the turn goes on
// to the next member that waits. What runs is accounted when that is decided, under mu, so the order of the decisions is the
// order of the accounts, whatever loops do meanwhile.
//
// INVARIANT: in each direction the timer is armed if and only if a request waits, and it is that of a member with a request.
//
// Analogous to QEMU's ThrottleGroup.
type ThrottleGroup struct {
	// Immutable.
	name  string
	clock clock // of the group, since those of contexts begin at different times

	// Safe from anywhere.
	enabled atomic.Bool // something is limited

	// Guarded by mu.
	mu      sync.Mutex
	buckets throttleBuckets
	members []*ThrottleMember // in the order of joining, which is that of their turns
	turns   [throttleDirections]throttleTurn
}

// throttleTurn says whose turn it is in one direction.
type throttleTurn struct {
	// Guarded by group.mu.
	last  int            // place of the member that had the last turn
	timer *throttleTimer // armed for the next; nil when nobody waits
}

// NewThrottleGroup makes a group that limits nothing yet.
func NewThrottleGroup(name string) *ThrottleGroup {
	return newThrottleGroup(name, newMonotonicClock())
}

func newThrottleGroup(name string, clock clock) *ThrottleGroup {
	g := &ThrottleGroup{name: name, clock: clock}
	for d := range g.turns {
		g.turns[d].last = -1
	}
	return g
}

// Name returns the name given at creation. Safe from anywhere.
func (g *ThrottleGroup) Name() string { return g.name }

// Members returns the names of the members, in the order of their turns. Safe from anywhere.
func (g *ThrottleGroup) Members() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var names []string
	for _, m := range g.members {
		names = append(names, m.name)
	}
	return names
}

// Config returns the limits. Safe from anywhere.
func (g *ThrottleGroup) Config() ThrottleConfig {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buckets.config
}

// Configure changes the limits if c is valid. What ran before is forgotten, and waiting requests are looked at again
// at once. Safe from anywhere.
func (g *ThrottleGroup) Configure(c ThrottleConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	var after throttleActions
	g.mu.Lock()
	g.buckets.configure(c, g.clock.now())
	g.enabled.Store(c.Enabled())
	for d := range throttleDirections {
		g.disarm(d, &after)
		g.schedule(d, &after)
	}
	g.verify()
	g.mu.Unlock()
	after.carryOut(nil)
	return nil
}

// Join makes a member of the group, whose requests come on ctx. Safe from anywhere.
func (g *ThrottleGroup) Join(ctx *AioContext, name string) *ThrottleMember {
	m := &ThrottleMember{name: name, group: g, ctx: ctx}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = append(g.members, m)
	return m
}

// lock takes mu for a decision and brings the buckets to the present.
func (g *ThrottleGroup) lock() {
	g.mu.Lock()
	g.buckets.leak(g.clock.now())
}

// remove takes m out; the order of the others' turns stays.
func (g *ThrottleGroup) remove(m *ThrottleMember) {
	place := slices.Index(g.members, m)
	check.Invariant(place >= 0, "throttle group %q: %q leaves and is no member", g.name, m.name)
	g.members = slices.Delete(g.members, place, place+1)
	for d := range g.turns {
		if g.turns[d].last >= place {
			g.turns[d].last--
		}
	}
}

// next returns the member whose turn comes: the first with a request behind the one that had the last.
func (g *ThrottleGroup) next(d ThrottleDirection) *ThrottleMember {
	for i := range g.members {
		m := g.members[(g.turns[d].last+1+i)%len(g.members)]
		if len(m.queues[d]) > 0 {
			return m
		}
	}
	return nil
}

// schedule lets those run that need not wait, in turn, and arms the timer for the first that must. Each
// change of queues, limits or timers ends here.
func (g *ThrottleGroup) schedule(d ThrottleDirection, after *throttleActions) {
	if g.turns[d].timer != nil {
		return
	}
	for m := g.next(d); m != nil; m = g.next(d) {
		if wait := g.buckets.wait(d); wait > 0 {
			g.arm(m, d, g.buckets.leaked+wait, after)
			return
		}
		g.grant(m, d, after)
	}
}

// grant lets the first request of m run: it is its turn.
func (g *ThrottleGroup) grant(m *ThrottleMember, d ThrottleDirection, after *throttleActions) {
	g.turns[d].last = slices.Index(g.members, m)
	m.release(d, after)
}

// arm has the first request of m run at a time of the group's clock.
func (g *ThrottleGroup) arm(m *ThrottleMember, d ThrottleDirection, at time.Duration, after *throttleActions) {
	a := &throttleTimer{member: m, ctx: m.ctx, direction: d, at: at}
	g.turns[d].timer = a
	after.start[d] = a
}

// disarm takes the timer of a direction back, if one is armed.
func (g *ThrottleGroup) disarm(d ThrottleDirection, after *throttleActions) {
	if a := g.turns[d].timer; a != nil {
		g.turns[d].timer = nil
		after.stop[d] = a
	}
}

// verify checks, where the check tag is set, the invariant of the group.
func (g *ThrottleGroup) verify() {
	if !check.Enabled {
		return
	}
	for d := range throttleDirections {
		next, timer := g.next(d), g.turns[d].timer
		check.Invariant((next != nil) == (timer != nil), "throttle group %q, %v: timer armed %t, requests wait %t", g.name, d, timer != nil, next != nil)
		if timer != nil {
			check.Invariant(len(timer.member.queues[d]) > 0, "throttle group %q, %v: timer of %q, which has no request", g.name, d, timer.member.name)
			check.Invariant(timer.ctx == timer.member.ctx, "throttle group %q, %v: timer of %q is on another context", g.name, d, timer.member.name)
			check.Invariant(slices.Contains(g.members, timer.member), "throttle group %q, %v: timer of %q, which has left", g.name, d, timer.member.name)
		}
		for _, m := range g.members {
			check.Invariant(m.suspended == 0 || len(m.queues[d]) == 0, "throttle group %q: a request of %q waits while it is suspended", g.name, m.name)
		}
	}
}
