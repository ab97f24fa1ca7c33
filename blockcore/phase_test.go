package blockcore

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// phaseOf returns the phase of the only section there is.
func phaseOf(g *Graph) Phase {
	all := g.SectionStates()
	if len(all) == 0 {
		return PhaseNone
	}
	return all[0].Phase
}

// Goal: a section tells how far it has got from the moment in which it was asked for to that in which the last loop goes on, and every phase is
// timed, the last one too. Method: another change of the graph, a loop that is held up, a busy owner and again a loop hold it in one phase after the other.
func TestSectionTellsItsPhase(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	ended := make(chan DrainEnded, 1)
	g := NewGraphWith(GraphOptions{OnEvent: func(e Event) {
		if e, ok := e.(DrainEnded); ok {
			ended <- e
		}
	}})
	n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: newMemory(4096, Limits{Align: 1})})
	require.NoError(t, err)
	var owner watchfulOwner
	owner.busy.Store(true)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Owner: &owner})
	require.NoError(t, err)
	hold := func() (release func()) {
		held, in := make(chan struct{}), make(chan struct{})
		require.True(t, c.Post(func() { close(in); <-held }))
		<-in
		return func() { close(held) }
	}

	require.NoError(t, g.lock(context.Background()))
	got := make(chan *Drained)
	go func() {
		d, err := g.Drain(context.Background(), DrainOptions{Why: "look", ID: "seven", Nodes: []*Node{n}})
		if err != nil {
			t.Error(err)
		}
		got <- d
	}()
	until(func() bool { return phaseOf(g) == PhaseBegin })
	require.Empty(t, g.Sections(), "nothing is quiesced yet")
	require.Empty(t, g.WaitsFor(g.SectionStates()[0].Section))

	release := hold()
	g.unlock()
	until(func() bool { return phaseOf(g) == PhaseThrottle })
	release()
	until(func() bool { return phaseOf(g) == PhaseSettle })
	state := g.SectionStates()[0]
	require.Equal(t, "seven", state.Section.ID())
	require.Equal(t, []*Node{n}, state.Nodes)
	require.Equal(t, []*Root{r}, state.Roots)
	require.Zero(t, state.Section.Held())
	require.Equal(t, "owner owner, which is busy", g.WaitsFor(state.Section)[0].String())

	owner.busy.Store(false)
	g.bell.ring()
	d := <-got
	require.Equal(t, PhaseStill, phaseOf(g))
	require.Empty(t, g.WaitsFor(d))
	require.Positive(t, d.Held())

	release = hold()
	d.End()
	require.Equal(t, PhaseResume, phaseOf(g))
	require.Zero(t, d.Timings().Resume)
	require.Empty(t, ended)
	const inResume = 5 * time.Millisecond
	<-time.After(inResume)
	release()
	<-d.Over()
	e := <-ended
	require.Equal(t, d.Timings(), e.Timings)
	require.GreaterOrEqual(t, e.Timings.Resume, inResume)
	require.Positive(t, e.Timings.Held)
	require.Less(t, e.Timings.Held, time.Since(d.Begun()))
	require.Equal(t, PhaseNone, phaseOf(g))
	r.Close()
	require.NoError(t, g.RemoveNode(n))
}

// Goal: of what two sections cover is said what it does, in whatever order they are looked at. Method: all pairs.
func TestPhasesOfTwoSections(t *testing.T) {
	order := []Phase{PhaseNone, PhaseBegin, PhaseResume, PhaseThrottle, PhaseUnplug, PhaseQuiesce, PhaseSettle, PhaseStill}
	for i, p := range order {
		for j, q := range order {
			require.Equal(t, order[max(i, j)], p.Over(q))
		}
	}
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(phaseNames[:]))), len(order))
}

// Goal: a section whose end tells no loop anything is over, too, and is timed. Method: one inside of another.
func TestInnerSectionIsOverAtOnce(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	outer, err := g.Drain(t.Context(), DrainOptions{Nodes: []*Node{n}})
	require.NoError(t, err)
	inner, err := g.Drain(t.Context(), DrainOptions{Nodes: []*Node{n}})
	require.NoError(t, err)
	inner.End()
	<-inner.Over()
	require.Len(t, g.SectionStates(), 1)
	outer.End()
	<-outer.Over()
	require.Empty(t, g.SectionStates())
	require.NoError(t, g.RemoveNode(n))
}
