package qcow2

import "nbd-dataplane/blockcore"

// grace tells when everything has ended that was in flight to clusters at some moment. Data I/O enters before it looks up where to go, and exits
// when it is done. There are two epochs, the present and the past one; the past one is over when nothing of it is in flight.
//
// Analogous to read-copy-update: the clusters are what is read, and freeing one, or using one again whose contents have ceased to count, is the update.
type grace struct {
	// Owned by the context.
	now      uint8
	turn     uint64 // how many epochs there were before
	inFlight [2]int64
	over     blockcore.WaitQueue // those who wait for one to be over
	waiting  [2][]freed          // what was freed in that epoch, and nothing on disk leads to any more
	ready    []freed             // nobody can be using it any more
}

// enter counts an I/O in and returns its epoch.
func (g *grace) enter() uint8 {
	g.inFlight[g.now]++
	return g.now
}

func (g *grace) exit(epoch uint8) {
	g.inFlight[epoch]--
	if g.inFlight[epoch] == 0 && !g.over.Empty() {
		g.over.WakeAll()
	}
}

// put keeps what was freed until what is in flight now has ended.
func (g *grace) put(all []freed) { g.waiting[g.now] = append(g.waiting[g.now], all...) }

// ripe returns what nobody can be using any more.
func (g *grace) ripe() []freed {
	g.advance()
	all := g.ready
	g.ready = nil
	return all
}

// advance begins another epoch if the past one is over, and one more if the present one is as well.
func (g *grace) advance() {
	for range 2 {
		past := g.now ^ 1
		if g.inFlight[past] > 0 {
			return
		}
		g.ready = append(g.ready, g.waiting[past]...)
		g.waiting[past] = nil
		g.now = past
		g.turn++
	}
}

// idle reports whether nothing is in flight.
func (g *grace) idle() bool { return g.inFlight[0]+g.inFlight[1] == 0 }

// isOver reports whether what was in flight when it was that turn has ended.
func (g *grace) isOver(turn uint64) bool { return g.turn >= turn+2 }

// await waits until that is so. The caller is not in flight itself.
func (g *grace) await(t *blockcore.Task, turn uint64) {
	for g.advance(); !g.isOver(turn); g.advance() {
		t.Wait(&g.over)
	}
}

// empty reports whether nothing waits.
func (g *grace) empty() bool { return len(g.waiting[0])+len(g.waiting[1])+len(g.ready) == 0 }
