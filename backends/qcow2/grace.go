package qcow2

// grace tells when everything has ended that was in flight to clusters at some moment. Data I/O enters before it looks up where to go, and exits
// when it is done. There are two epochs, the present and the past one; the past one is over when nothing of it is in flight.
//
// Analogous to read-copy-update: the clusters are what is read, and freeing one is the update.
type grace struct {
	// Owned by the context.
	now      uint8
	inFlight [2]int64
	waiting  [2][]freed // what was freed in that epoch, and nothing on disk leads to any more
}

// enter counts an I/O in and returns its epoch.
func (g *grace) enter() uint8 {
	g.inFlight[g.now]++
	return g.now
}

func (g *grace) exit(epoch uint8) { g.inFlight[epoch]-- }

// put keeps what was freed until what is in flight now has ended.
func (g *grace) put(all []freed) { g.waiting[g.now] = append(g.waiting[g.now], all...) }

// ripe returns what nobody can be using any more, and begins another epoch if the past one is over.
func (g *grace) ripe() []freed {
	past := g.now ^ 1
	if g.inFlight[past] > 0 {
		return nil
	}
	all := g.waiting[past]
	g.waiting[past] = nil
	if g.inFlight[g.now] == 0 {
		all = append(all, g.waiting[g.now]...)
		g.waiting[g.now] = nil
		return all
	}
	g.now = past
	return all
}

// empty reports whether nothing waits.
func (g *grace) empty() bool { return len(g.waiting[0])+len(g.waiting[1]) == 0 }
