package blockcore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// race is a loop that begins one request after the other, each of which takes so long by the way that is followed.
type race struct {
	contest
	now   time.Duration
	begun uint64
}

// run goes on for some time and returns how long it went which way.
func (r *race) run(length time.Duration, takes [2]time.Duration) (spent [2]time.Duration) {
	for end := r.now + length; r.now < end; {
		r.note(r.now, r.begun)
		took := takes[r.way()]
		spent[r.way()] += took
		r.now += took
		r.begun++
	}
	return spent
}

// Goal: the loop goes the way in which requests are begun faster, finds out within a second, tries the other one seldom, and sleeps where both are the same.
// Method: requests that take so long by looking and by sleeping, in a loop that was sure of the one way, or of the other.
func TestContestIsWon(t *testing.T) {
	const us = time.Microsecond
	for _, row := range []struct {
		name   string
		takes  [2]time.Duration
		winner way
	}{
		{"two processors that are slow to wake", [2]time.Duration{23 * us, 41 * us}, wayLook},
		{"one processor for both", [2]time.Duration{24 * us, 17 * us}, waySleep},
		{"a client with a pace", [2]time.Duration{100 * us, 100 * us}, waySleep},
		{"looking is hardly faster", [2]time.Duration{96 * us, 100 * us}, waySleep},
		{"many requests", [2]time.Duration{2 * us, 3 * us}, wayLook},
		{"few requests", [2]time.Duration{900 * us, 1000 * us}, wayLook},
	} {
		t.Run(row.name, func(t *testing.T) {
			for first := range way(2) {
				r := race{contest: newContest(), now: time.Hour}
				r.winner, r.pause = first, contestMax
				r.run(time.Second, row.takes)
				require.Equal(t, row.winner, r.winner)
				r.run(time.Minute, row.takes)
				spent := r.run(time.Minute, row.takes)
				require.Equal(t, row.winner, r.winner)
				require.Positive(t, spent[row.winner^1], "the other one is tried")
				require.Less(t, spent[row.winner^1], time.Second)
			}
		})
	}
}

// Goal: what has won is kept where the difference is small. Method: looking is between a twentieth and a tenth faster, for who looks and for who sleeps.
func TestContestKeepsItsWinner(t *testing.T) {
	for first := range way(2) {
		r := race{contest: newContest()}
		r.winner = first
		r.run(time.Minute, [2]time.Duration{100 * time.Microsecond, 107 * time.Microsecond})
		require.Equal(t, first, r.winner)
	}
}

// Goal: a loop that has lost its faith in looking looks in a trial as long as it may, whatever it learned from sleeping; by the way that has won nothing is looked
// at; how long a client lets the loop wait says nothing about either. Method: a loop that sleeps as long as the test says, with requests that do nothing.
func TestLoopFollowsTheContest(t *testing.T) {
	const us = time.Microsecond
	l := newFakeLoop(t, ContextOptions{PollMax: 60 * us})
	looked := 0
	request := func() {
		l.Spawn(BodyFunc(func(*Task) {}))
		l.engine.looks = func(int) bool { looked++; return false }
	}
	l.contest.winner = waySleep
	l.during(request)
	require.Zero(t, looked)
	require.Zero(t, l.polling.current)

	since := l.contest.since
	l.resume(time.Second)
	l.resume(0)
	require.InDelta(t, time.Second-restCounted, l.contest.since-since, float64(10*us), "a long rest hardly counts")

	looked = 0 // of which one belongs to the sleep of a second
	l.contest.since = l.time.now() - contestFirst
	for i := 0; looked == 0; i++ {
		require.Equal(t, waySleep, l.contest.way())
		require.LessOrEqual(t, i, stintRequests, "the trial has begun")
		l.during(request)
	}
	require.Equal(t, 60, looked)
	require.Equal(t, wayLook, l.contest.way())
}

// Goal: a loop that must not look has no contest. Method: requests for long, with nothing to look for.
func TestNoContestWithoutLooking(t *testing.T) {
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	for range 2 * stintRequests {
		l.during(func() { l.Spawn(BodyFunc(func(*Task) {})) })
		l.resume(time.Millisecond)
	}
	require.Equal(t, 0, l.contest.stint)
	require.Zero(t, l.polling.current)
}
