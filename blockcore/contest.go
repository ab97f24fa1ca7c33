package blockcore

import "time"

// way is what a loop does when there is nothing to do.
type way uint8

const (
	wayLook  way = iota // look for work for a while, then sleep
	waySleep            // sleep at once
)

func (w way) other() way { return w ^ 1 }

// The numbers of a contest, each with its reason.
const (
	// stintRequests and stintTime are how long a way is followed, at least, before it is judged: the scheduler has found its places for client and loop after
	// half a millisecond, and a few requests are judged by chance.
	stintRequests = 32
	stintTime     = 2 * time.Millisecond
	// trialStints is how many stints a trial has: two of each way, in turn, so that what changes slowly meets both.
	trialStints = 4
	// From one trial to the next the way that has won is followed, twice as long each time that it wins again: in the end for so long, or for contestShare
	// times as long as the other one was tried.
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

// contest finds out by which way more requests are begun in the same time (docs/decisions/0015-looking-or-sleeping.md). It knows the time and their number, and
// nothing of the processors.
type contest struct {
	// Owned by the context.
	winner way
	stint  int              // of the trial, from 1; 0 = there is none
	pause  time.Duration    // from the last trial to the next
	since  time.Duration    // when this stint, or this pause, began
	begun  uint64           // requests that had been begun then
	took   [2]time.Duration // the trial, by way
	did    [2]uint64        // requests begun in the trial, by way
}

func newContest() contest { return contest{pause: contestFirst} }

// way is what to do now.
func (k *contest) way() way {
	if k.stint%2 == 1 {
		return k.winner.other()
	}
	return k.winner
}

// leaveOut has a part of the time not count.
func (k *contest) leaveOut(d time.Duration) { k.since += d }

// note takes how many requests have been begun until now. It reports whether the loop looks from now on after it has slept at once for long: what it had learned
// of looking is out of date.
func (k *contest) note(now time.Duration, begun uint64) (anew bool) {
	took, did := now-k.since, begun-k.begun
	if did < stintRequests || took < k.length() {
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
	if k.stint++; k.stint > trialStints {
		k.stint = 0
		k.decide()
	}
	return false
}

// length is how long the stint, or the pause, has to be.
func (k *contest) length() time.Duration {
	if k.stint == 0 {
		return k.pause
	}
	return stintTime
}

// decide ends a trial.
func (k *contest) decide() {
	need := float64(lookWins)
	if k.winner == wayLook {
		need = lookKeeps
	}
	wins := waySleep
	if k.rate(wayLook)*100 > k.rate(waySleep)*need {
		wins = wayLook
	}
	if wins == k.winner {
		k.pause = min(2*k.pause, max(contestMax, contestShare*k.took[wins.other()]))
		return
	}
	k.winner, k.pause = wins, contestFirst
}

// rate is how many requests were begun in a nanosecond of the trial.
func (k *contest) rate(w way) float64 { return float64(k.did[w]) / float64(k.took[w]) }
