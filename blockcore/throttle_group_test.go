package blockcore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tenPerSecond lets an operation run each 100 ms, and two of them at once after a rest.
var tenPerSecond = ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: 10}}

func TestThrottleMembersTakeTurns(t *testing.T) {
	// Members that wait have a request run in turn, however many each has, in the order of coming within a member. Who
	// joined first is not favoured: the turn goes on from where it was.
	s := newThrottleScript(t, tenPerSecond, "a", "b", "c")
	a, b, c := s.members[0], s.members[1], s.members[2]
	s.ask(a, 512, "r1", "r2", "r3", "r4", "r5")
	s.ask(c, 512, "r1")
	s.ask(b, 512, "r1", "r2")
	require.Equal(t, []string{"read a"}, armedTimers(s.group))
	require.Equal(t, 3, a.Waiting())
	s.pass(350 * time.Millisecond)
	s.expect(`
		0s a: r1
		0s a: r2
		100ms a: r3
		200ms b: r1
		300ms c: r1`)
	s.ask(c, 512, "r2")
	s.passAll()
	s.expect(`
		400ms a: r4
		500ms b: r2
		600ms c: r2
		700ms a: r5`)
	s.expectIdle()
}

func TestThrottleKeepsOrderWithinAMember(t *testing.T) {
	// A short request does not overtake a long one of the same direction that waits, though its own limits would let it run; the other
	// direction has a queue of its own.
	s := newThrottleScript(t, ThrottleConfig{BPSRead: ThrottleLimit{Avg: 1000}, BPSWrite: ThrottleLimit{Avg: 1000}}, "a")
	a := s.members[0]
	s.ask(a, 500, "r500")
	s.ask(a, 10_000, "r10000")
	s.ask(a, 1, "r1")
	s.ask(a, 1, "w1")
	s.passAll()
	s.expect(`
		0s a: r500
		0s a: w1
		400ms a: r10000
		10.4s a: r1`)
	s.expectIdle()
}

func TestThrottleDirectionsShareATotal(t *testing.T) {
	// A limit in total holds reads and writes together: each direction has its own timer, and both are poured into one bucket. As in
	// QEMU, a timer is not put off by what the other direction runs meanwhile, but the next one is.
	s := newThrottleScript(t, tenPerSecond, "a")
	s.ask(s.members[0], 512, "r1", "r2", "r3", "w1", "w2", "r4", "r5", "w3")
	require.Equal(t, []string{"read a", "write a"}, armedTimers(s.group))
	s.passAll()
	s.expect(`
		0s a: r1
		0s a: r2
		100ms a: r3
		100ms a: w1
		200ms a: r4
		300ms a: w2
		400ms a: r5
		500ms a: w3`)
	s.expectIdle()
}

func TestThrottleBursts(t *testing.T) {
	// A burst of two seconds at forty a second, and ten a second after it: requests run at the burst rate until what the bucket holds
	// is used up. After a pause there is another burst.
	s := newThrottleScript(t, ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: 10, Max: 40, MaxLength: 2}}, "a")
	count := 0
	s.ran = func(*ThrottleMember, ThrottleDirection, int64, string) { count++ }
	for range 200 {
		s.ask(s.members[0], 512, "r")
	}
	for _, row := range []struct {
		pass time.Duration
		want int // requests that have run since the beginning
	}{
		{0, 5},                      // a tenth of a second's burst, and the one that fills it
		{time.Second, 5 + 40},       // the burst
		{time.Second, 5 + 80},       //
		{time.Second, 111},          // the bucket of 80 is full: 80 + 10 a second, and the one that fills it
		{5 * time.Second, 111 + 50}, // the average
		{time.Hour, 200},            //
		{20 * time.Second, 200},     //
	} {
		s.pass(row.pass)
		require.Equal(t, row.want, count)
	}
	s.expectIdle()
}

func TestThrottleIOPSSizeSplits(t *testing.T) {
	// A request four times the size of an operation counts as four.
	s := newThrottleScript(t, ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: 10}, IOPSSize: 4096}, "a")
	s.ask(s.members[0], 16384, "r1", "r2", "r3")
	s.passAll()
	s.expect(`
		0s a: r1
		300ms a: r2
		700ms a: r3`)
}

func TestThrottleLeavesFlushesAlone(t *testing.T) {
	// A request of no bytes neither waits nor counts, as in QEMU, where flushes do not come by the throttle.
	s := newThrottleScript(t, tenPerSecond, "a")
	a := s.members[0]
	s.ask(a, 512, "w1", "w2", "w3")
	s.ask(a, 0, "w-flush1", "w-flush2")
	s.passAll()
	s.expect(`
		0s a: w1
		0s a: w2
		0s a: w-flush1
		0s a: w-flush2
		100ms a: w3`)
}

func TestThrottleWithoutLimits(t *testing.T) {
	// A group without limits, and a member that is nil, let everything through and count nothing.
	s := newThrottleScript(t, ThrottleConfig{}, "a")
	s.ask(s.members[0], 1<<40, "r1", "r2")
	require.Zero(t, s.group.buckets.bucket[bpsTotal].level)
	s.expect(`
		0s a: r1
		0s a: r2`)
	var none *ThrottleMember
	none.Suspend()
	none.Admit(nil, ThrottleRead, 1<<40)
	none.Resume()
	none.Move(nil)
	none.Leave()
	require.Zero(t, none.Waiting())
	require.Nil(t, none.Group())
}

func TestThrottleTimersExistOnlyWhileArmed(t *testing.T) {
	// T-T3 to T-T8: QEMU's members own timers from init to destroy, which detach from a context and attach to another. Here
	// a timer exists while a request waits, on the loop of its member, and at no other time: none after joining, one
	// for each direction that waits, none after the last has run, none after leaving.
	s := newThrottleScript(t, ThrottleConfig{IOPSRead: ThrottleLimit{Avg: 10}, IOPSWrite: ThrottleLimit{Avg: 10}}, "a")
	a := s.members[0]
	s.expectIdle()
	s.ask(a, 512, "r1", "r2", "r3")
	require.Equal(t, []string{"read a"}, armedTimers(s.group)) // T-T4
	require.Len(t, s.loop.timers, 1)
	s.passAll()
	s.ask(a, 512, "w1", "w2", "w3")
	require.Equal(t, []string{"write a"}, armedTimers(s.group)) // T-T5
	s.ask(a, 512, "r4", "r5")
	require.Equal(t, []string{"read a", "write a"}, armedTimers(s.group)) // T-T3, T-T7
	require.Len(t, s.loop.timers, 2)
	s.on(a.Suspend) // T-T8: detached ...
	s.expectIdle()
	a.Move(s.loop.AioContext)
	a.Resume()
	s.ask(a, 512, "r6", "w4")
	require.Equal(t, []string{"read a", "write a"}, armedTimers(s.group)) // ... and attached
	s.passAll()
	a.Leave() // T-T6
	s.expectIdle()
}

func TestThrottleGroupsShareTheirState(t *testing.T) {
	// T-T17: members of one group see one config, however it is set; members of another do not.
	foo, bar := NewThrottleGroup("foo"), NewThrottleGroup("bar")
	one, two, three := bar.Join(nil, "one"), foo.Join(nil, "two"), bar.Join(nil, "three")
	require.Equal(t, "bar", one.Group().Name())
	require.Equal(t, "foo", two.Group().Name())
	require.Same(t, one.Group(), three.Group())
	require.Equal(t, []string{"one", "three"}, bar.Members())
	require.NoError(t, one.Group().Configure(tenPerSecond))
	require.Equal(t, tenPerSecond, three.Group().Config())
	require.Zero(t, two.Group().Config())
	require.EqualError(t, three.Group().Configure(ThrottleConfig{IOPSSize: 1}), errSizeAlone)
	require.Equal(t, tenPerSecond, one.Group().Config(), "what is refused changes nothing")
	one.Leave()
	require.Equal(t, []string{"three"}, bar.Members())
	three.Leave()
	two.Leave()
	require.Empty(t, bar.Members())
}

func TestThrottleLimitsChangeLive(t *testing.T) {
	// Limits change while requests wait: they are looked at again at once, and wait for as long as the new ones want, beginning now.
	s := newThrottleScript(t, tenPerSecond, "a", "b")
	a, b := s.members[0], s.members[1]
	s.ask(a, 512, "r1", "r2", "r3", "r4", "r5", "w1")
	s.ask(b, 512, "r1", "r2")
	s.pass(10 * time.Millisecond)
	configure := func(avg int64) {
		require.NoError(t, s.group.Configure(ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: avg}}))
		s.step(0)
	}
	configure(1) // the bucket is empty again and holds a tenth of an operation
	require.Equal(t, []string{"read b", "write a"}, armedTimers(s.group))
	s.pass(940 * time.Millisecond)
	configure(100) // ten at once, and the one that fills it
	s.expect(`
		0s a: r1
		0s a: r2
		10ms a: r3
		910ms b: r1
		910ms a: w1
		950ms a: r4
		950ms a: r5
		950ms b: r2`)
	s.expectIdle()

	configure(1)
	s.ask(a, 512, "r6", "r7", "r8", "w2")
	s.expect(`950ms a: r6`)
	configure(0) // no limits
	s.expect(`
		950ms a: r7
		950ms a: r8
		950ms a: w2`)
	s.expectIdle()
}

func TestThrottleDrain(t *testing.T) {
	// T-X8: a member is suspended, as a drain does it, while the timer of the group is its own. All of its requests run without the clock
	// going on and those that come meanwhile do not wait; they are accounted, and so the other member waits longer, and keeps
	// its limits. No timer is left without a request. After Resume the limits hold again.
	s := newThrottleScript(t, tenPerSecond, "a", "b")
	a, b := s.members[0], s.members[1]
	s.ask(a, 512, "r1", "r2", "r3", "r4", "w1")
	s.ask(b, 512, "r1", "r2")
	require.Equal(t, []string{"read a", "write a"}, armedTimers(s.group))
	a.Suspend()
	s.step(0)
	s.expect(`
		0s a: r1
		0s a: r2
		0s a: r3
		0s a: r4
		0s a: w1`)
	require.Equal(t, []string{"read b"}, armedTimers(s.group))
	require.Len(t, s.loop.timers, 1)
	s.ask(a, 512, "r5", "w2")
	s.expect(`
		0s a: r5
		0s a: w2`)
	s.pass(200 * time.Millisecond)
	a.Suspend() // sections nest
	a.Resume()
	s.ask(a, 512, "r6")
	a.Resume()
	s.ask(a, 512, "r7")
	s.passAll()
	s.expect(`
		200ms a: r6
		400ms b: r1
		800ms a: r7
		900ms b: r2`)
	s.expectIdle()
}

func TestThrottleDrainDoesNotWaitForAnothersTurn(t *testing.T) {
	// T-X8 and QEMU's 5d8e4ca035: the timer is that of another member while this one is suspended. It runs at once all the same,
	// and the other keeps timer and turn.
	s := newThrottleScript(t, tenPerSecond, "a", "b")
	a, b := s.members[0], s.members[1]
	s.ask(a, 512, "r1", "r2", "r3")
	s.ask(b, 512, "r1", "r2")
	s.on(b.Suspend)
	require.Equal(t, []string{"read a"}, armedTimers(s.group))
	s.passAll()
	s.expect(`
		0s a: r1
		0s a: r2
		0s b: r1
		0s b: r2
		100ms a: r3`)
	s.expectIdle()
}

func TestThrottleDrainOfAll(t *testing.T) {
	// Both members are suspended at once, as a drain of all does it: nobody waits for anybody.
	s := newThrottleScript(t, tenPerSecond, "a", "b")
	for _, m := range s.members {
		s.ask(m, 512, "r1", "r2", "w1", "w2")
	}
	s.on(func() {
		for _, m := range s.members {
			m.Suspend()
		}
	})
	s.expect(`
		0s a: r1
		0s a: r2
		0s a: w1
		0s a: w2
		0s b: r1
		0s b: r2
		0s b: w1
		0s b: w2`)
	s.expectIdle()
}

func TestThrottleMemberLeavesWhileOthersWait(t *testing.T) {
	// A member that leaves changes nothing for those that wait, wherever in the round it stood: neither when they run nor in which
	// order. The transcript is the same whether three that have no requests stay or leave one after the other.
	const golden = `
		0s a: r1
		0s a: r2
		100ms a: r3
		200ms b: r1
		300ms c: r1
		400ms d: r1
		500ms a: r4
		600ms b: r2
		700ms c: r2
		800ms d: r2`
	for _, leave := range []bool{false, true} {
		s := newThrottleScript(t, tenPerSecond, "a", "b", "idle1", "c", "idle2", "d", "idle3")
		byName := map[string]*ThrottleMember{}
		for _, m := range s.members {
			byName[m.name] = m
		}
		s.ask(byName["a"], 512, "r1", "r2", "r3", "r4")
		for _, name := range []string{"b", "c", "d"} {
			s.ask(byName[name], 512, "r1", "r2")
		}
		if leave {
			for i, name := range []string{"idle1", "idle3", "idle2"} {
				s.pass(time.Duration(i)*150*time.Millisecond + 10*time.Millisecond)
				byName[name].Leave()
			}
		}
		s.passAll()
		s.expect(golden)
		s.expectIdle()
	}
}

func TestThrottleTurnGoesOnBehindWhoLeft(t *testing.T) {
	// The member that had the last turn leaves, and limits are set again so that turns are decided anew: the next is that of the one
	// that stood behind it.
	s := newThrottleScript(t, tenPerSecond, "a", "b", "c")
	a, b, c := s.members[0], s.members[1], s.members[2]
	s.ask(a, 512, "r1", "r2")
	s.ask(b, 512, "r1")
	s.ask(a, 512, "r3", "r4")
	s.ask(c, 512, "r1")
	s.pass(100 * time.Millisecond)
	s.expect(`
		0s a: r1
		0s a: r2
		100ms b: r1`)
	b.Leave()
	require.NoError(t, s.group.Configure(tenPerSecond))
	s.step(0)
	s.passAll()
	s.expect(`
		100ms c: r1
		100ms a: r3
		200ms a: r4`)
	s.expectIdle()
}

func TestThrottleDrainCountsWhatItReleases(t *testing.T) {
	// What a suspended member runs is counted in all buckets, those included that were empty at that moment: the 5000 bytes that a
	// runs at 800 ms are paid for by b.
	s := newThrottleScript(t, ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: 1}, BPSTotal: ThrottleLimit{Avg: 1000}}, "a", "b")
	a, b := s.members[0], s.members[1]
	s.ask(a, 10, "r1")
	s.ask(a, 5000, "r2")
	s.pass(800 * time.Millisecond)
	s.on(a.Suspend)
	s.ask(b, 1, "r1")
	s.passAll()
	s.expect(`
		0s a: r1
		800ms a: r2
		5.7s b: r1`)
	s.expectIdle()
}

func TestThrottleReleasedAreNotOvertaken(t *testing.T) {
	// Requests that have been released and do not run yet stay ahead of one that comes now, whether the member was suspended or the
	// limits went away.
	for _, release := range []func(*ThrottleMember){
		(*ThrottleMember).Suspend,
		func(m *ThrottleMember) { _ = m.Group().Configure(ThrottleConfig{}) },
	} {
		s := newThrottleScript(t, ThrottleConfig{BPSTotal: ThrottleLimit{Avg: 1000}}, "a")
		a := s.members[0]
		s.ask(a, 512, "r1", "r2", "r3")
		s.on(func() {
			release(a)
			s.loop.Spawn(BodyFunc(func(t *Task) {
				a.Admit(t, ThrottleRead, 512)
				s.note("%s: r4", a.name)
			}))
		})
		s.expect(`
			0s a: r1
			0s a: r2
			0s a: r3
			0s a: r4`)
		s.expectIdle()
	}
}

func TestThrottleTimerThatIsLateDoesNothing(t *testing.T) {
	// A timer that has been taken back under the mutex, and whose loop has not heard of it: it fires, or is set, too late, and nothing comes
	// of it. The first is made by limits that go away in a callback that runs just before the timer's.
	s := newThrottleScript(t, tenPerSecond, "a")
	a := s.members[0]
	s.on(func() {
		s.loop.After(99*time.Millisecond, func() { _ = s.group.Configure(ThrottleConfig{}) })
	})
	s.ask(a, 512, "r1", "r2", "r3")
	s.step(time.Second)
	s.expect(`
		0s a: r1
		0s a: r2
		1s a: r3`)
	s.expectIdle()

	require.NoError(t, s.group.Configure(tenPerSecond))
	s.ask(a, 512, "r4", "r5", "r6")
	late := s.group.turns[ThrottleRead].timer
	s.on(a.Suspend)
	s.on(late.start)
	s.expectIdle()
}

func TestThrottleMemberRefusesMisuse(t *testing.T) {
	// A member that moves or leaves while a request waits, moves without being suspended, leaves or is resumed once too often,
	// is a mistake of ours that must not go by: each panics and changes nothing.
	s := newThrottleScript(t, tenPerSecond, "a")
	a := s.members[0]
	s.ask(a, 512, "r1", "r2", "r3")
	require.Panics(t, func() { a.Move(s.loop.AioContext) })
	require.Panics(t, a.Leave)
	require.Panics(t, a.Resume)
	s.passAll()
	require.Panics(t, func() { a.Move(s.loop.AioContext) })
	a.Leave()
	require.Panics(t, a.Leave)
	s.expectIdle()
}
