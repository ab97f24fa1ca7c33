package blockcore

import "time"

// way is what a loop does when there is nothing to do.
type way uint8

const (
	wayLook  way = iota // look for work for a while, then sleep
	waySleep            // sleep at once
)

// The contest, each number with its reason.
const (
	// stintRequests and stintTime are how long a way is followed before it is judged: the scheduler has found its places for client and loop after half a
	// millisecond, and a few requests are judged by chance.
	stintRequests = 32
	stintTime     = 2 * time.Millisecond
	// trialStints is how many stints a trial has: two of each way, in turn, so that what changes slowly meets both.
	trialStints = 4
	// Between two trials the way that has won is followed, longer each time that it wins again: in the end for so long, and for contestShare times as long as
	// the other one was tried.
	contestFirst = 16 * time.Millisecond
	contestMax   = 500 * time.Millisecond
	contestShare = 64
	// restCounted is how much of a rest counts: the remainder of a longer one is the client's, whatever the loop does.
	restCounted = time.Millisecond
	// Looking wins if it begins lookWins percent of the requests that sleeping does in the same time, and keeps what it has won above lookKeeps: it costs a
	// processor.
	lookWins  = 110
	lookKeeps = 105
)

// contest finds out which way more requests are begun in the same time. Looking is for who waits on another processor for what comes in a few microseconds. Where
// client and loop share one, or waking is cheap, whoever looks only keeps the client from running: which of both it is depends on the machine, on its load and
// on the client, and is tried every now and then. A client that has its own pace gets the same either way; then the loop sleeps.
type contest struct {
	winner way
	stint  int           // of the trial, from 1; 0 = there is none
	pause  time.Duration // from the last trial to the next
	since  time.Duration // when this stint, or this pause, began
	begun  uint64        // requests that had been begun then
	took   [2]time.Duration
	did    [2]uint64
}

func newContest() contest { return contest{pause: contestFirst} }

// way is what to do now.
func (k *contest) way() way {
	if k.stint%2 == 1 {
		return k.winner ^ 1
	}
	return k.winner
}

// leaveOut has a part of the time not count.
func (k *contest) leaveOut(d time.Duration) { k.since += d }

// note takes how many requests have been begun until now, and reports whether looking begins that nobody has learned anything for: the loop has slept at once
// for long.
func (k *contest) note(now time.Duration, begun uint64) (anew bool) {
	took, did := now-k.since, begun-k.begun
	length := stintTime
	if k.stint == 0 {
		length = k.pause
	}
	if did < stintRequests || took < length {
		return false
	}
	k.since, k.begun = now, begun
	if k.stint == 0 {
		k.took, k.did = [2]time.Duration{}, [2]uint64{}
		k.stint = 1
		return k.winner == waySleep
	}
	k.took[k.way()] += took
	k.did[k.way()] += did
	if k.stint < trialStints {
		k.stint++
		return false
	}
	k.stint = 0
	k.decide()
	return false
}

// decide ends a trial.
func (k *contest) decide() {
	looked := float64(k.did[wayLook]) * float64(k.took[waySleep]) * 100
	slept := float64(k.did[waySleep]) * float64(k.took[wayLook])
	wins := waySleep
	if k.winner == waySleep && looked > slept*lookWins || k.winner == wayLook && looked > slept*lookKeeps {
		wins = wayLook
	}
	if wins == k.winner {
		k.pause = min(2*k.pause, max(contestMax, contestShare*k.took[wins^1]))
		return
	}
	k.winner, k.pause = wins, contestFirst
}
