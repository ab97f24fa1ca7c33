package qcow2

import "nbd-dataplane/blockcore"

// epochs tell when everything has ended that was in flight at some moment. There are two, the present and the past one; the past one is over when nothing of
// it is in flight. Owned by the context.
//
// Analogous to read-copy-update: what is in flight to clusters reads them, and to free one, or to use its place again, is the update.
type epochs struct {
	now      uint8
	turn     uint64 // how many there were before
	inFlight [2]int64
	over     blockcore.WaitQueue // those who wait for one to be over
}

// enter counts an I/O in and returns its epoch.
func (e *epochs) enter() uint8 {
	e.inFlight[e.now]++
	return e.now
}

func (e *epochs) exit(epoch uint8) {
	e.inFlight[epoch]--
	if e.inFlight[epoch] == 0 && !e.over.Empty() {
		e.over.WakeAll()
	}
}

// idle reports whether nothing is in flight.
func (e *epochs) idle() bool { return e.inFlight[0]+e.inFlight[1] == 0 }

// advance begins another epoch if the past one is over, and returns that.
func (e *epochs) advance() (past uint8, ok bool) {
	past = e.now ^ 1
	if e.inFlight[past] > 0 {
		return past, false
	}
	e.now = past
	e.turn++
	return past, true
}

// isOver reports whether what was in flight when it was that turn has ended. It takes two more for that: what is in flight then is of two epochs.
func (e *epochs) isOver(turn uint64) bool {
	for ok := true; ok && e.turn < turn+2; {
		_, ok = e.advance()
	}
	return e.turn >= turn+2
}

// await waits until that is so. The caller is not in flight itself.
func (e *epochs) await(t *blockcore.Task, turn uint64) {
	for !e.isOver(turn) {
		t.Wait(&e.over)
	}
}

// grace is the time that clusters have before they are used again. Data I/O enters before it looks up where to go, and exits when it is done.
type grace struct {
	epochs
	waiting [2][]freed // what was freed in that epoch, and nothing on disk leads to any more
}

// put keeps what was freed until what is in flight now has ended.
func (g *grace) put(all []freed) { g.waiting[g.now] = append(g.waiting[g.now], all...) }

// ripe returns what nobody can be using any more, and begins another epoch if the past one is over.
func (g *grace) ripe() (all []freed) {
	for range 2 {
		past, ok := g.advance()
		if !ok {
			break
		}
		all = append(all, g.waiting[past]...)
		g.waiting[past] = nil
	}
	return all
}

// empty reports whether nothing waits.
func (g *grace) empty() bool { return len(g.waiting[0])+len(g.waiting[1]) == 0 }
