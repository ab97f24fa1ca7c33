package blockcore

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// run has a loop go on as long as it can.
func run(l *Stepped) {
	for l.Runnable() {
		l.Step()
		synctest.Wait()
	}
}

// Goal: a change that a loop was asked for and that was given up while it flushed has nothing more to do with the graph when the flush ends: another loop that
// is the control plane by then stays it, and does what it is told itself; and no other node is flushed, which may be removed by then. Method: two loops
// that move only by steps. The flush of the first change ends while the second one, on the other loop, is in the middle and the end of a section
// waits to be told to that loop.
func TestChangeThatWasGivenUpLeavesTheGraphAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := NewStepped("one", nil), NewStepped("two", nil)
		g := NewGraph()
		var asleep WaitQueue
		spare := newMemory(4096, Limits{Align: 1})
		spare.log = true
		add := func(name string, on *Stepped, d Driver) (n *Node) {
			drive(t, func() (err error) {
				n, err = g.AddNode(NodeOptions{Name: name, Context: on.AioContext, Driver: d})
				return err
			}, one, two)
			return n
		}
		memory := func() Driver { return newMemory(4096, Limits{Align: 1}) }
		slow := add("slow", one, sleepy{newMemory(4096, Limits{Align: 1}), &asleep})
		next := add("next", one, spare)
		from, to, held := add("from", two, memory()), add("to", two, memory()), add("held", two, memory())
		var owner watchfulOwner
		_, err := g.NewRoot(held, RootOptions{Name: "owner", Owner: &owner})
		require.NoError(t, err)
		r, err := g.NewRoot(from, RootOptions{Name: "root"})
		require.NoError(t, err)

		first := make(chan error, 1)
		go func() {
			o := DrainOptions{Why: "first", Nodes: []*Node{slow, next}, Flush: []*Node{slow, next}, Brief: true, Max: time.Second}
			first <- g.Change(context.Background(), o, func(*Tx, *Drained) error {
				t.Error("it was given up")
				return nil
			})
		}()
		synctest.Wait()
		run(one)
		require.ErrorContains(t, <-first, "flush: no answer after 30s")
		run(one)
		drive(t, func() error { return g.RemoveNode(next) }, one)
		closed := []string{"flush 0+0", "close"}
		require.Equal(t, closed, spare.calls)

		var other *Drained
		drive(t, func() (err error) {
			other, err = g.Drain(context.Background(), DrainOptions{Why: "other", Nodes: []*Node{held}})
			return err
		}, two)
		var lent *AioContext
		var early int32
		second := make(chan error, 1)
		go func() {
			o := DrainOptions{Why: "second", Nodes: []*Node{from, to}, Brief: true}
			second <- g.Change(context.Background(), o, func(tx *Tx, d *Drained) error {
				other.End()
				one.Post(func() { asleep.WakeAll() })
				synctest.Wait()
				run(one)
				lent, early = g.lent, owner.resumed.Load()
				return tx.Replace(d, from, to)
			})
		}()
		synctest.Wait()
		run(two)
		require.NoError(t, <-second)
		require.True(t, lent == two.AioContext, "the loop is the control plane no longer")
		require.Zero(t, early, "another loop has done what this one was told")
		require.EqualValues(t, 1, owner.resumed.Load())
		require.Equal(t, to, r.Node())
		require.Equal(t, closed, spare.calls)
		closeStepped(t, one, two)
	})
}
