package blockcore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTurnOrder(t *testing.T) {
	// A turn does things in the order that turn.go states: one thing of each kind is prepared while the loop sleeps,
	// in the reverse order, and the transcript is compared.
	l := newFakeLoop(t, ContextOptions{})
	var q WaitQueue
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) {
			t.Wait(&q)
			l.note("ready Task")
			_ = t.Fdatasync(0)
			l.note("completion")
		}))
		l.After(time.Second, func() { l.note("timer") })
	})
	l.lines = nil
	l.during(func() {
		l.AtTurnEnd(turnEnder(func() { l.note("turn end") }))
		q.WakeOne()
		w := l.Watch(-1, &handler{})
		w.handler = &handler{in: func() bool {
			l.note("hot socket")
			w.Close()
			return true
		}}
		w.Heat()
		l.time.advance(time.Second)
		l.Post(func() { l.note("posted") })
	})
	l.expect(`
		posted
		timer
		hot socket
		ready Task
		submit 1
		completion
		turn end
		wait 8ms`)
}

func TestPostedWorkKeepsItsOrder(t *testing.T) {
	// Posted work runs in the order of posting, and what it posts itself runs in the next turn, behind
	// the other work of this one: a chain of posts beside a Task and turn ends.
	// Scenarios: T-A1, T-A2, T-A7.
	l := newFakeLoop(t, ContextOptions{})
	l.during(func() {
		end := turnEnder(func() { l.note("turn end") })
		l.Post(func() {
			l.note("first")
			l.AtTurnEnd(end)
			l.Post(func() { l.note("posted by first"); l.AtTurnEnd(end) })
			l.Spawn(BodyFunc(func(*Task) { l.note("spawned by first") }))
		})
		l.Post(func() { l.note("second") })
	})
	l.expect(`
		wait 8ms
		first
		spawned by first
		second
		turn end
		posted by first
		turn end
		wait 8ms`)
}

func TestTurnEndsOnceForEachRegistration(t *testing.T) {
	// A turn end is called once for each registration, in order, with those that are registered by
	// others at the end of the same turn, and is then forgotten.
	l := newFakeLoop(t, ContextOptions{})
	a := turnEnder(func() { l.note("a") })
	b := turnEnder(func() { l.note("b"); l.AtTurnEnd(a) })
	l.lines = nil
	l.during(func() {
		l.AtTurnEnd(a)
		l.AtTurnEnd(b)
		l.AtTurnEnd(a)
	})
	l.expect("a\nb\na\na\nwait 8ms")
	l.resume(0)
	l.expect("wait 8ms")
}

func TestYieldLetsOthersRun(t *testing.T) {
	// Tasks that yield take turns, and what is posted, timed and hot gets its place between: three Tasks
	// yield twice each, and one post is made by the first.
	// Scenarios: T-C1.
	l := newFakeLoop(t, ContextOptions{})
	l.lines = nil
	l.during(func() {
		for _, name := range []string{"a", "b", "c"} {
			l.Spawn(BodyFunc(func(t *Task) {
				if name == "a" {
					l.Post(func() { l.note("posted by a") })
				}
				for i := range 3 {
					l.note("%s%d", name, i)
					t.Yield()
				}
			}))
		}
	})
	l.expect("a0\nb0\nc0\nposted by a\na1\nb1\nc1\na2\nb2\nc2\nwait 8ms")
}

func TestSpawn(t *testing.T) {
	// Spawn runs a body at once when the loop itself calls, and after the suspension or the end of the Task that
	// calls: Tasks that spawn three levels deep write a transcript.
	l := newFakeLoop(t, ContextOptions{})
	l.lines = nil
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) {
			l.note("outer begins")
			l.Spawn(BodyFunc(func(*Task) {
				l.note("inner begins")
				l.Spawn(BodyFunc(func(*Task) { l.note("innermost") }))
				l.note("inner ends")
			}))
			l.note("outer suspends")
			t.Yield()
			l.note("outer ends")
		}))
		l.note("the loop goes on")
	})
	l.expect(`
		outer begins
		outer suspends
		the loop goes on
		inner begins
		inner ends
		outer ends
		innermost
		wait 8ms`)
}

func TestTimers(t *testing.T) {
	// Timers run in the order of their times, each once, none that was stopped, and the loop sleeps no longer than until the
	// next one: timers are set out of order and the clock moves past them.
	// Scenarios: T-A12.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	var stopped, spent *Timer
	l.lines = nil
	l.during(func() {
		l.After(1700*time.Microsecond, func() { l.note("third") })
		spent = l.After(500*time.Microsecond, func() {
			l.note("first")
			l.After(900*time.Microsecond, func() { l.note("second, set by first") })
		})
		stopped = l.After(600*time.Microsecond, func() { l.note("never") })
	})
	l.expect("wait 500us")
	require.True(t, stopped.Stop())
	require.False(t, stopped.Stop())
	l.resume(499 * time.Microsecond)
	l.expect("wait 1us")
	l.resume(time.Microsecond)
	require.False(t, spent.Stop())
	l.expect("first\nwait 900us")
	l.resume(time.Hour)
	l.expect("second, set by first\nthird\nwait 8ms")
}

func TestShortThenPatientSleep(t *testing.T) {
	// A sleep is a short wait and, when that has lasted its whole time for nothing, a patient one until the next timer:
	// a table of timers, of what ends the first wait, and of the waits that must be seen.
	table := []struct {
		name   string
		timer  time.Duration // 0 = none
		waited time.Duration // the first wait ends after that
		ended  func(*fakeLoop)
		want   string
	}{
		{"no timer", 0, shortWaitMax, nil, "wait patiently"},
		{"late timer", 10 * time.Millisecond, shortWaitMax, nil, "wait patiently 2ms"},
		{"the wait was longer than asked", 12 * time.Millisecond, 9 * time.Millisecond, nil, "wait patiently 3ms"},
		{"early timer", time.Millisecond, time.Millisecond, nil, "timer\nwait 8ms"},
		{"timer at the limit", shortWaitMax, shortWaitMax, nil, "timer\nwait 8ms"},
		{"ended early", 0, shortWaitMax - 1, nil, "wait 8ms"},
		{"something came", 0, shortWaitMax, func(l *fakeLoop) { l.engine.looks = func(int) bool { return true } }, "wait 8ms"},
		{"woken", 0, shortWaitMax, func(l *fakeLoop) { l.Post(func() { l.note("posted") }) }, "posted\nwait 8ms"},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			l := newFakeLoop(t, ContextOptions{PollMax: -1})
			if row.timer > 0 {
				l.during(func() { l.After(row.timer, func() { l.note("timer") }) })
			}
			l.lines = nil
			if row.ended != nil {
				row.ended(l)
			}
			l.resume(row.waited)
			l.expect(row.want)
		})
	}
}

func TestHotSocketsAreArmedBeforeSleep(t *testing.T) {
	// What is hot is looked at in each turn, is armed in the engine before the loop sleeps, and stops being hot; what
	// was cooled, or closed, is neither. Three Watchers, one of each kind, in two sleeps.
	// Scenarios: T-A8.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	looked := map[string]int{}
	watch := func(name string) *Watcher {
		w := l.Watch(-1, &handler{in: func() bool { looked[name]++; return false }})
		w.Heat()
		return w
	}
	var stays, cooled, closed *Watcher
	l.lines = nil
	l.during(func() { stays, cooled, closed = watch("stays"), watch("cooled"), watch("closed") })
	l.expect("arm in\narm in\narm in\nwait 8ms")
	require.Equal(t, map[string]int{"stays": 1, "cooled": 1, "closed": 1}, looked)
	l.during(func() {
		for _, w := range []*Watcher{stays, cooled, closed} {
			w.armed[directionIn] = false
			w.Heat()
			w.Cool()
			w.Heat() // once in the list all the same
		}
		cooled.Cool()
		closed.Close()
	})
	l.expect("arm in\nwait 8ms")
	require.Equal(t, map[string]int{"stays": 2, "cooled": 1, "closed": 1}, looked)
	l.during(func() {
		l.engine.fired = append(l.engine.fired, firing{stays, directionIn})
	})
	require.Equal(t, map[string]int{"stays": 3, "cooled": 1, "closed": 1}, looked)
	require.Empty(t, l.hot)
	l.during(func() { stays.Close(); cooled.Close() })
}

func TestHotListDuringItsWalk(t *testing.T) {
	// The list of hot Watchers survives what handlers do while it is walked: one closes its neighbour, one
	// heats a new one up, one cools itself and heats up again. Each is called at most once a turn.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	calls := map[string]int{}
	var first, second, third, late *Watcher
	l.lines = nil
	l.during(func() {
		first = l.Watch(-1, &handler{in: func() bool {
			calls["first"]++
			second.Close()
			late = l.Watch(-1, &handler{in: func() bool { calls["late"]++; return false }})
			late.Heat()
			return false
		}})
		second = l.Watch(-1, &handler{in: func() bool { calls["second"]++; return false }})
		third = l.Watch(-1, &handler{in: func() bool {
			calls["third"]++
			third.Cool()
			third.Heat()
			return false
		}})
		first.Heat()
		second.Heat()
		third.Heat()
	})
	l.expect("arm in\narm in\narm in\nwait 8ms")
	require.Equal(t, map[string]int{"first": 1, "third": 1}, calls)
	l.during(func() { first.Close(); third.Close(); late.Close() })
	require.Len(t, l.watchers.free, len(l.watchers.table))
}

func TestPostBeforeSleepIsSeen(t *testing.T) {
	// Work that is posted after the loop's last look around, while it hands its sockets to the engine, keeps it
	// from sleeping, and no wake-up is sent; once it sleeps, the first post wakes it and the second does not.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	l.lines = nil
	l.engine.onArm = func() {
		l.Post(func() { l.note("posted") })
	}
	l.during(func() { l.Watch(-1, &handler{}).Heat() })
	l.expect("arm in\nposted\nwait 8ms")
	require.Zero(t, l.engine.wakes.Load())
	l.Post(func() { l.note("third") })
	l.Post(func() { l.note("fourth") })
	require.Equal(t, int64(1), l.engine.wakes.Load())
	l.resume(0)
	l.expect("third\nfourth\nwait 8ms")
}

func TestPostAtTheBeginOfSleepWakes(t *testing.T) {
	// Work that is posted after the loop has looked whether it may sleep wakes the engine: posted from inside of
	// the engine's wait, each time anew.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	l.lines = nil
	for i := range 3 {
		l.engine.onWait = func() {
			l.engine.onWait = nil
			l.Post(func() { l.note("posted %d", i) })
		}
		l.resume(0)
		require.Equal(t, int64(i+1), l.engine.wakes.Load())
		l.resume(0)
		l.expect(fmt.Sprintf("wait 8ms\nposted %d\nwait 8ms", i))
	}
}

func TestTurnEndThatMakesWork(t *testing.T) {
	// A Task that becomes ready, and an operation that is queued, at the very end of a turn are not slept over:
	// the turn end wakes a Task, which starts an operation.
	// Scenarios: T-A11.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	var q WaitQueue
	l.lines = nil
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) {
			t.Wait(&q)
			l.note("woken")
			_ = t.Fdatasync(0)
			l.note("done")
		}))
		l.AtTurnEnd(turnEnder(func() { q.WakeOne() }))
	})
	l.expect("woken\nsubmit 1\ndone\nwait 8ms")
}

func TestOperationIsRepeatedAfterEINTR(t *testing.T) {
	// EINTR of an operation is the Go runtime's affair: it is made again, and its Task sees the result
	// of the last attempt only, here the third.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	attempts := 0
	l.engine.results = func(o *operation) (int32, bool) {
		if attempts++; attempts < 3 {
			return -4, true
		}
		return -5, true
	}
	l.lines = nil
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) { l.note("%v", t.Fdatasync(0)) }))
	})
	l.expect("submit 1\nsubmit 1\nsubmit 1\ninput/output error\nwait 8ms")
}

func TestAlone(t *testing.T) {
	// Alone is true where nothing else waits to be started: a Task asks by itself, with an operation queued, with a
	// ready Task, and while more requests are at hand.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	ask := BodyFunc(func(t *Task) { l.note("%v", t.Alone()) })
	l.lines = nil
	l.during(func() {
		l.Spawn(ask)
		l.Spawn(BodyFunc(func(t *Task) { _ = t.Fdatasync(0) }))
		l.Spawn(ask)
	})
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) { t.Yield() }))
		l.Spawn(ask)
	})
	l.during(func() {
		l.Backlog(true)
		l.Spawn(ask)
		l.Backlog(false)
		l.Spawn(ask)
	})
	l.expect(`
		true
		false
		submit 1
		wait 8ms
		false
		wait 8ms
		false
		true
		wait 8ms`)
}

// Goal: a timer can be set again and again, earlier, later, when it is over and when it was stopped. Method: one timer on a loop whose clock the test drives.
func TestTimerIsResetInPlace(t *testing.T) {
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	var tm *Timer
	l.lines = nil
	l.during(func() {
		l.After(50*time.Microsecond, func() { l.note("other") })
		tm = l.NewTimer(func() { l.note("fired") })
		require.False(t, tm.Stop(), "it waits for Reset")
		tm.Reset(time.Hour)
		tm.Reset(100 * time.Microsecond)
		tm.Reset(200 * time.Microsecond)
	})
	l.expect("wait 50us")
	l.resume(50 * time.Microsecond)
	l.expect("other\nwait 150us")
	l.resume(150 * time.Microsecond)
	l.expect("fired\nwait 8ms")
	l.during(func() {
		tm.Reset(10 * time.Microsecond)
		require.True(t, tm.Stop())
		tm.Reset(20 * time.Microsecond)
	})
	l.expect("wait 20us")
	l.resume(20 * time.Microsecond)
	l.expect("fired\nwait 8ms")
}
