package nbd

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: a connection that was refused more than there is room for waits, instead of trying again in each turn of its loop (REQ-9). Method: room
// for some of what it wants; it is woken when bytes are given back, and not before.
func TestBudgetWaitsForEnoughRoom(t *testing.T) {
	h := newHouse(t, houseOptions{engine: blockcore.EngineAuto})
	h.dial(dialOptions{}).alive()
	c := h.conn(0)
	b := newBudget(10)
	require.True(t, b.take(8, false))
	require.False(t, b.take(5, false))
	b.await(c, 5, false)
	require.True(t, b.waiting.Load())
	b.give(3)
	require.False(t, b.waiting.Load())
	b.await(c, 5, false) // there is room by now
	require.False(t, b.waiting.Load())
}

// Goal: a refusal is invisible to others: a connection that finds room is never refused because one beside it asks for too much. Method: one goroutine
// is refused without end, another takes and gives what there is room for.
func TestBudgetRefusalCountsNothing(t *testing.T) {
	b := newBudget(10)
	require.True(t, b.take(1, false))
	quit := make(chan struct{})
	var refused sync.WaitGroup
	refused.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
				b.take(10, false)
			}
		}
	})
	for range 100_000 {
		if !b.take(1, false) {
			t.Error("refused although there is room")
			break
		}
		b.give(1)
	}
	close(quit)
	refused.Wait()
	require.EqualValues(t, 1, b.used.Load())
}

// Goal: the rule of admission. Method: a table around the bound, twice the bound, and a request longer than the bound.
func TestBudgetAdmits(t *testing.T) {
	b := newBudget(10 * mib)
	for _, c := range []struct {
		used, n      int64
		company, all bool // admitted in company, admitted alone
	}{
		{0, 10 * mib, true, true},
		{1, 10 * mib, false, true},
		{10 * mib, 10 * mib, false, true},
		{10*mib + 1, 10 * mib, false, false},
		{100 * mib, mib, false, true},
		{100 * mib, mib + 1, false, false},
		{100 * mib, 10*mib + 1, false, true},
	} {
		require.Equal(t, c.company, b.admits(c.used, c.n, false), "%+v", c)
		require.Equal(t, c.all, b.admits(c.used, c.n, true), "%+v", c)
	}
}
