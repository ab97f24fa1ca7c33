package blockcore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: a change by Change stands or fails as one in a section of its own, whoever makes it: the loop at once, or the control plane where
// there is something in flight, where there are two loops, or where it is asked to. What is to be flushed is, before; a failed flush or change leaves
// everything as it was; events come in the order in which a section has them, and nothing is still afterwards. Method: a table, for one graph after
// the other; the change says by the loop's own note whether a Task runs.
func TestChange(t *testing.T) {
	one, two := newTestContext(t, ContextOptions{}), newTestContext(t, ContextOptions{})
	no := errors.New("no")
	stands := []string{"settled", "changed", "ended"}
	fails := []string{"settled", "unchanged", "ended"}
	table := []struct {
		name             string
		slow, apart, own bool // a request is in flight; the nodes are on two loops; a section of somebody else covers the node
		plain            bool // not Brief
		flushFails       error
		changeFails      error
		byLoop           bool
		events           []string
		err              string
	}{
		{name: "at once", byLoop: true, events: stands},
		{name: "in a section of somebody else", own: true, byLoop: true, events: stands},
		{name: "at once, in vain", byLoop: true, changeFails: no, events: fails, err: "no"},
		{name: "the flush fails", byLoop: true, flushFails: no, events: fails, err: "flush node disk: no"},
		{name: "not brief", plain: true, events: stands},
		{name: "not brief, the flush fails", plain: true, flushFails: no, events: fails, err: "flush node disk: no"},
		{name: "something in flight", slow: true, events: stands},
		{name: "two loops", apart: true, events: stands},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			var events []string
			g := NewGraphWith(GraphOptions{OnEvent: func(e Event) {
				switch e.(type) {
				case DrainSettled:
					events = append(events, "settled")
				case DrainEnded:
					events = append(events, "ended")
				case GraphChanged:
					events = append(events, "changed")
				case GraphUnchanged:
					events = append(events, "unchanged")
				}
			}})
			var flushes int
			disk := newMemory(4096, Limits{Align: 1})
			disk.fail = func(op string) error { flushes++; return row.flushFails }
			from, err := g.AddNode(NodeOptions{Name: "disk", Context: one, Driver: disk})
			require.NoError(t, err)
			on := one
			if row.apart {
				on = two
			}
			to, err := g.AddNode(NodeOptions{Name: "other", Context: on, Driver: newMemory(4096, Limits{Align: 1})})
			require.NoError(t, err)
			var owner watchfulOwner
			owner.busy.Store(row.slow)
			r, err := g.NewRoot(from, RootOptions{Name: "owner", Owner: &owner, Movable: true})
			require.NoError(t, err)
			if row.own {
				d, err := r.Drain(t.Context())
				require.NoError(t, err)
				defer d.End()
			}
			if row.slow {
				go func() {
					until(func() bool { return owner.quiesced.Load() > 0 && len(g.control) == 0 })
					owner.busy.Store(false)
					r.Settled()
				}()
			}
			events = nil
			byLoop := false
			o := DrainOptions{Why: "test", Nodes: []*Node{from, to}, Flush: []*Node{from}, Brief: !row.plain}
			err = g.Change(t.Context(), o, func(tx *Tx, d *Drained) error {
				byLoop = tx.byLoop
				require.True(t, d.Settled())
				if err := tx.Replace(d, from, to); err != nil {
					return err
				}
				return row.changeFails
			})
			want := to
			if row.err != "" {
				require.EqualError(t, err, row.err)
				want = from
			} else {
				require.NoError(t, err)
			}
			for _, s := range g.SectionStates() { // the control plane is not the last to resume where it could not go first
				if s.Section.why == "test" {
					<-s.Section.Over()
				}
			}
			do(t, one, func(*Task) error { return nil })
			require.Equal(t, want, r.Node())
			require.Equal(t, 1, flushes)
			require.Equal(t, row.byLoop && row.flushFails == nil, byLoop)
			require.Equal(t, row.events, events[:3])
			require.Equal(t, row.own, r.Quiesced() == 1)
			require.Equal(t, 0, from.Quiesced()+to.Quiesced())
		})
	}
}

// Goal: a change that a loop is asked for does not wait for ever, and never happens after it was given up: neither when the loop does not come to it nor when
// the flush before it does not end. Method: a loop that moves only by steps; time passes, and then it goes on.
func TestChangeGivesUp(t *testing.T) {
	for _, flushes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := NewStepped("loop", nil)
			g := NewGraph()
			var from, to *Node
			disk := newMemory(4096, Limits{Align: 1})
			var asleep WaitQueue
			drive(t, func() (err error) {
				if from, err = g.AddNode(NodeOptions{Name: "disk", Context: l.AioContext, Driver: sleepy{disk, &asleep}}); err == nil {
					to, err = g.AddNode(NodeOptions{Name: "other", Context: l.AioContext, Driver: newMemory(4096, Limits{Align: 1})})
				}
				return err
			}, l)
			r, err := g.NewRoot(from, RootOptions{Name: "owner"})
			require.NoError(t, err)
			changed := make(chan error, 1)
			go func() {
				o := DrainOptions{Why: "test", Nodes: []*Node{from, to}, Flush: []*Node{from}, Brief: true, Max: time.Second}
				changed <- g.Change(context.Background(), o, func(tx *Tx, d *Drained) error {
					t.Error("it was given up")
					return nil
				})
			}()
			synctest.Wait()
			for flushes && l.Runnable() {
				l.Step()
				synctest.Wait()
			}
			want := "event loop loop, which does not answer"
			if flushes {
				want = "flush: no answer after 30s"
			}
			require.ErrorContains(t, <-changed, want)
			for l.Runnable() {
				l.Step()
				synctest.Wait()
			}
			l.Post(func() { asleep.WakeAll() })
			for l.Runnable() {
				l.Step()
				synctest.Wait()
			}
			require.Equal(t, from, r.Node())
			require.Equal(t, 0, r.Quiesced())
			closeStepped(t, l)
		})
	}
}

// sleepy is a memory whose flush waits for somebody.
type sleepy struct {
	*memory
	asleep *WaitQueue
}

func (s sleepy) Flush(t *Task) error {
	t.Wait(s.asleep)
	return nil
}

// Goal: a section that a loop begins comes behind what the loop was told before, however it was told. Method: another section covers the node
// and ends after the loop was asked and before it runs, so that the end is in the loop's queue behind the change; the change must find admission closed.
func TestChangeComesBehindTheEndOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewStepped("loop", nil)
		g := NewGraph()
		var from, to *Node
		drive(t, func() (err error) {
			if from, err = g.AddNode(NodeOptions{Name: "disk", Context: l.AioContext, Driver: newMemory(4096, Limits{Align: 1})}); err == nil {
				to, err = g.AddNode(NodeOptions{Name: "other", Context: l.AioContext, Driver: newMemory(4096, Limits{Align: 1})})
			}
			return err
		}, l)
		r, err := g.NewRoot(from, RootOptions{Name: "owner"})
		require.NoError(t, err)
		var other *Drained
		drive(t, func() (err error) { other, err = r.Drain(context.Background()); return err }, l)
		changed, found := make(chan error, 1), false
		go func() {
			o := DrainOptions{Why: "test", Nodes: []*Node{from, to}, Brief: true}
			changed <- g.Change(context.Background(), o, func(tx *Tx, d *Drained) error {
				found = r.still
				return tx.Replace(d, from, to)
			})
		}()
		synctest.Wait() // the loop is asked
		for _, s := range g.SectionStates() {
			if s.Section != other {
				require.Equal(t, PhaseBegin, s.Phase)
				require.Equal(t, "event loop loop, which does not answer", g.WaitsFor(s.Section)[0].String())
			}
		}
		other.End()
		synctest.Wait() // and told of the end
		for l.Runnable() {
			l.Step()
			synctest.Wait()
		}
		require.NoError(t, <-changed)
		require.True(t, found)
		require.Equal(t, to, r.Node())
		for l.Runnable() {
			l.Step()
			synctest.Wait()
		}
		require.False(t, r.still)
		closeStepped(t, l)
	})
}

// Goal: a flush that is for no change is told of if it fails, and only then, by a name that is no change's. Method: one of each.
func TestFlushIsNoChange(t *testing.T) {
	var events []Event
	g := NewGraphWith(GraphOptions{OnEvent: func(e Event) { events = append(events, e) }})
	no := errors.New("no")
	var fails error
	disk := newMemory(4096, Limits{Align: 1})
	disk.fail = func(string) error { return fails }
	n, err := g.AddNode(NodeOptions{Name: "disk", Context: newTestContext(t, ContextOptions{}), Driver: disk})
	require.NoError(t, err)
	events = nil
	require.NoError(t, g.Flush(t.Context(), "test", n))
	require.Empty(t, events)
	fails = no
	err = g.Flush(t.Context(), "test", n)
	require.ErrorIs(t, err, no)
	require.Equal(t, []Event{GraphUnchanged{Why: "test", Err: err}}, events)
	fails = nil
	require.NoError(t, g.RemoveNodes())
}
