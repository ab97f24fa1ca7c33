package blockcore

import (
	"slices"
	"sync/atomic"
	"time"
)

// Phase is how far a drained section has got.
type Phase int32

// The phases in their order.
const (
	PhaseNone     Phase = iota // no section: requests run
	PhaseBegin                 // asked for, and flushing ahead, or waiting for another change or for the loop that begins it: requests run
	PhaseThrottle              // limits off, waiters released
	PhaseUnplug                // what was queued is submitted
	PhaseQuiesce               // sources stopped, parents first
	PhaseSettle                // the wait for what is in flight
	PhaseStill                 // nothing is in flight, and nothing begins
	PhaseResume                // ended; the loops have not all gone on yet
)

var phaseNames = [...]string{"none", "begin", "throttle", "unplug", "quiesce", "settle", "still", "resume"}

// String is the word that monitors use.
func (p Phase) String() string { return phaseNames[p] }

// SectionState is a section at one moment.
type SectionState struct {
	Section *Drained
	Phase   Phase
	Nodes   []*Node // that it covers, parents first
	Roots   []*Root
}

// SectionStates returns all sections that were asked for and are not over, the oldest first, as they are at one moment. Safe from
// anywhere.
func (g *Graph) SectionStates() []SectionState {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]SectionState, 0, len(g.sections))
	for d := range g.sections {
		if d.isOver() {
			continue
		}
		s := SectionState{Section: d, Phase: d.phase()}
		s.Nodes, s.Roots = d.coverage()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b SectionState) int { return a.Section.begun.Compare(b.Section.begun) })
	return all
}

// phase is that of the loop that is last. graph.mu is held.
func (d *Drained) phase() Phase {
	switch {
	case d.ended:
		return PhaseResume
	case d.settled:
		return PhaseStill
	case !d.began:
		return PhaseBegin
	}
	p := PhaseSettle
	for _, s := range d.steps {
		p = min(p, Phase(s.phase.Load()))
	}
	return p
}

// rank orders phases by what they say of something that several sections cover.
func (p Phase) rank() int {
	switch p {
	case PhaseNone:
		return 0
	case PhaseBegin:
		return 1
	case PhaseResume:
		return 2
	}
	return int(p) + 1
}

// Over returns the one of two phases that says what something does which both sections cover: what one of them holds still is still, whatever
// the other one waits for, and one that has ended lets nothing go on that another one covers.
func (p Phase) Over(q Phase) Phase {
	if p.rank() >= q.rank() {
		return p
	}
	return q
}

// resumption is the end of a section on its way through the loops, which take no lock of the graph.
type resumption struct {
	// Immutable.
	section *Drained
	settled bool
	timings Timings // without that of this phase
	begun   time.Time

	// Safe from anywhere.
	took atomic.Int64 // until the loop that was last had resumed
	left atomic.Int32 // loops that have not resumed, and one for the control plane
}

// expect is told how many loops there are, before any of them is told.
func (r *resumption) expect(loops int) {
	if r != nil {
		r.left.Store(int32(loops) + 1)
	}
}

// resumed says that a loop has. It takes no lock.
func (r *resumption) resumed() {
	if r == nil {
		return
	}
	r.took.Store(int64(time.Since(r.begun)))
	r.taken()
}

// taken says that one of them has done its part. With the last one the section is over. It takes no lock.
func (r *resumption) taken() {
	if r.left.Add(-1) > 0 {
		return
	}
	d := r.section
	r.timings.Resume = time.Duration(r.took.Load())
	d.resume.Store(int64(r.timings.Resume))
	close(d.over)
	if r.settled {
		d.graph.emit(DrainEnded{Why: d.why, Timings: r.timings})
	}
}

// isOver reports whether all loops have resumed.
func (d *Drained) isOver() bool {
	select {
	case <-d.over:
		return true
	default:
		return false
	}
}
