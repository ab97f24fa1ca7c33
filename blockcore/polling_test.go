package blockcore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPollPolicy(t *testing.T) {
	// Polling grows while events come soon enough to be caught, stays when it catches them, and shrinks to nothing when they do
	// not come: the time worth polling after each of a series of rests.
	const us = time.Microsecond
	table := []struct {
		name    string
		max     time.Duration
		rests   []time.Duration
		current []time.Duration
	}{
		{"off", 0, []time.Duration{5 * us, time.Hour, 1}, []time.Duration{0, 0, 0}},
		{"below zero is off", -1, []time.Duration{5 * us}, []time.Duration{0}},
		{
			"grows up to the limit", 20 * us,
			[]time.Duration{10 * us, 10 * us, 10 * us, 15 * us, 20 * us, 20 * us},
			[]time.Duration{4 * us, 8 * us, 16 * us, 16 * us, 20 * us, 20 * us},
		},
		{
			"shrinks to nothing", 60 * us,
			[]time.Duration{10 * us, 10 * us, 10 * us, 61 * us, 61 * us, time.Hour, time.Hour},
			[]time.Duration{4 * us, 8 * us, 16 * us, 8 * us, 4 * us, 0, 0},
		},
		{"a limit below the first step", 3 * us, []time.Duration{2 * us, 3 * us}, []time.Duration{3 * us, 3 * us}},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			p := newPollPolicy(row.max)
			for i, rest := range row.rests {
				p.adjust(rest)
				require.Equal(t, row.current[i], p.current, "after rest %d of %v", i, rest)
			}
		})
	}
}

func TestPollingLooksBeforeItSleeps(t *testing.T) {
	// A loop that polls looks at its sockets, at posted work and at the engine before it sleeps, no longer than the policy
	// and the next timer allow: the looks are counted in virtual time, a microsecond each.
	const us = time.Microsecond
	l := newFakeLoop(t, ContextOptions{PollMax: 60 * us})
	l.polling.current = 20 * us
	asked := 0
	count := func(look int) bool { asked = look; return false }
	l.engine.looks = count
	l.resume(0)
	require.Equal(t, 20, asked)
	l.during(func() {
		l.polling.current = 20 * us
		l.After(5*us, func() { l.note("timer") })
	})
	l.polling.current = 0
	require.Equal(t, 5, asked)
	l.resume(time.Hour)
	l.lines = nil

	// Caught by polling: there is no sleep in between. Each look is one of the engine and one of the hot sockets.
	l.polling.current = 20 * us
	l.during(func() {
		l.polling.current = 20 * us
		looks := 0
		var w *Watcher
		w = l.Watch(-1, &handler{in: func() bool {
			looks++
			if looks == 10 {
				l.note("caught at look %d", looks)
				w.Close()
				return true
			}
			return false
		}})
		w.Heat()
	})
	l.expect("caught at look 10\nwait 8ms")
}

func TestPolledCompletionIsReaped(t *testing.T) {
	// What polling finds in the engine is delivered by the turn that follows, without a sleep: an operation
	// completes at the third look.
	l := newFakeLoop(t, ContextOptions{PollMax: 60 * time.Microsecond})
	complete := false
	l.engine.results = func(*operation) (int32, bool) { return 0, complete }
	l.engine.looks = func(look int) bool { complete = look >= 3; return complete }
	l.lines = nil
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) {
			_ = t.Fdatasync(0)
			l.note("done")
			l.engine.looks = nil
		}))
		l.polling.current = 30 * time.Microsecond
	})
	l.expect("submit 1\ndone\nwait 8ms")
}

func TestDozing(t *testing.T) {
	// A loop that dozes looks at nothing before it sleeps this once, and learns anew how long to look: looks are counted before and after a rest that looking would have
	// caught.
	const us = time.Microsecond
	l := newFakeLoop(t, ContextOptions{PollMax: 60 * us})
	looked := false
	l.during(func() {
		l.polling.current = 30 * us
		l.engine.looks = func(int) bool { looked = true; return false }
		l.Doze()
	})
	require.False(t, looked)
	l.polling.current = 0
	l.polling.adjust(20 * us)
	require.Equal(t, pollFirst, l.polling.current)
	l.resume(0)
	require.True(t, looked, "and then looks again")
}

func TestNoPollingWhileAnotherThreadCopies(t *testing.T) {
	// A loop for one of whose Tasks another thread copies much leaves the processor to that thread: it looks at nothing before it sleeps.
	l := newFakeLoop(t, ContextOptions{PollMax: 60 * time.Microsecond})
	looked, complete := false, false
	l.engine.results = func(*operation) (int32, bool) { return 0, complete }
	l.lines = nil
	l.during(func() {
		l.Spawn(BodyFunc(func(t *Task) {
			t.BeginCopy()
			_ = t.Fdatasync(0)
			t.EndCopy()
			l.note("done")
		}))
		l.polling.current = 30 * time.Microsecond
		l.engine.looks = func(int) bool { looked = true; return false }
	})
	require.False(t, looked)
	complete = true
	l.polling.current = 30 * time.Microsecond
	l.resume(0)
	require.Zero(t, l.lulls)
	require.True(t, looked, "and then polls again")
}
