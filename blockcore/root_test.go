package blockcore

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// gate holds requests up inside of a Root until it is opened.
type gate struct{ q WaitQueue }

// hold starts a request on r that ends when the gate is opened.
func (g *gate) hold(r *Root, note func()) {
	r.Context().Spawn(BodyFunc(func(t *Task) {
		k := Ticket{Op: "hold", Range: Range{0x10, 0x20}}
		r.Begin(t, &k)
		if note != nil {
			note()
		}
		t.Wait(&g.q)
		r.End(t, &k)
	}))
}

func newRootOn(t *testing.T, c *AioContext) *Root {
	return attach(t, c, newMemory(4096, Limits{Align: 1}))
}

// drainLater begins a drain in a goroutine of its own and returns when the loop knows of it.
func drainLater(t *testing.T, r *Root) <-chan *Drained {
	t.Helper()
	before := r.Quiesced()
	drained := make(chan *Drained, 1)
	go func() {
		d, err := r.Drain(context.Background())
		if err != nil {
			t.Error(err)
		}
		drained <- d
	}()
	do(t, r.Context(), func(t *Task) error {
		for r.Quiesced() == before {
			t.Yield()
		}
		return nil
	})
	return drained
}

func TestDrainWaitsForWhatIsInFlight(t *testing.T) {
	// A drain returns when nothing is in flight and not before, at once where nothing is, and counts are right all along: two requests
	// that end one by one.
	onEngines(t, func(t *testing.T, c *AioContext) {
		r := newRootOn(t, c)
		d, err := r.Drain(t.Context())
		require.NoError(t, err)
		d.End()
		var g gate
		onLoop(t, c, func() { g.hold(r, nil); g.hold(r, nil) })
		require.True(t, r.Busy())
		require.Equal(t, int64(2), r.InFlight())
		drained := drainLater(t, r)
		onLoop(t, c, func() { g.q.WakeOne() })
		do(t, c, func(t *Task) error {
			for r.InFlight() != 1 {
				t.Yield()
			}
			return nil
		})
		require.Empty(t, drained)
		onLoop(t, c, func() { g.q.WakeOne() })
		(<-drained).End()
		require.False(t, r.Busy())
		r.Close()
	})
}

func TestHeldRequestsRunInOrder(t *testing.T) {
	// Requests that arrive in a drained section wait for its end and then go first, in the order of their coming, before those that
	// arrive at the very moment of the end: requests are begun during and right behind the section.
	onEngines(t, func(t *testing.T, c *AioContext) {
		r := newRootOn(t, c)
		d, err := r.Drain(t.Context())
		require.NoError(t, err)
		var order []int
		start := func(i int) {
			c.Spawn(BodyFunc(func(t *Task) {
				var k Ticket
				r.Begin(t, &k)
				order = append(order, i)
				r.End(t, &k)
			}))
		}
		onLoop(t, c, func() {
			for i := range 5 {
				start(i)
			}
			if len(order) != 0 || r.Busy() {
				t.Error("a request was not held back")
			}
			d.End()
			c.Post(func() { start(5) })
		})
		do(t, c, func(t *Task) error {
			for len(order) < 6 {
				t.Yield()
			}
			return nil
		})
		require.Equal(t, []int{0, 1, 2, 3, 4, 5}, order)
		require.False(t, r.Busy())
	})
}

func TestSectionThatFollowsAtOnce(t *testing.T) {
	// A section that begins in the moment in which another ends does not mix up those who were held: they have been admitted and are waited for, as
	// is who came behind them before the section did; those who come later are held.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	r := newRootOn(t, l.AioContext)
	start := func(name string) {
		l.Spawn(BodyFunc(func(t *Task) {
			var k Ticket
			r.Begin(t, &k)
			l.note("%s", name)
			r.End(t, &k)
		}))
	}
	idle := r.graph.bell.next()
	quiesce := func() { r.hush() }
	l.lines = nil
	l.during(func() { quiesce(); start("a"); start("b") })
	l.during(func() {
		l.Post(r.stir)
		l.Post(func() { start("c") })
		l.Post(quiesce)
		l.Post(func() { start("d") })
	})
	l.expect("wait 8ms\na\nb\nc\nwait 8ms")
	<-idle
	l.during(r.stir)
	l.expect("d\nwait 8ms")
}

func TestSectionsNestAndOverlap(t *testing.T) {
	// A Root stays quiet until the last of its sections has ended, in whatever order they end, and ending one twice counts
	// once: three sections, all orders.
	onEngines(t, func(t *testing.T, c *AioContext) {
		for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			r := newRootOn(t, c)
			var sections []*Drained
			for range 3 {
				d, err := r.Drain(t.Context())
				require.NoError(t, err)
				sections = append(sections, d)
			}
			var began atomic.Bool
			onLoop(t, c, func() {
				c.Spawn(BodyFunc(func(t *Task) {
					var k Ticket
					r.Begin(t, &k)
					began.Store(true)
					r.End(t, &k)
				}))
			})
			for i, which := range order {
				sections[which].End()
				sections[which].End()
				do(t, c, func(t *Task) error { t.Yield(); t.Yield(); return nil })
				require.Equal(t, i == 2, began.Load())
			}
			require.False(t, r.Busy())
		}
	})
}

func TestOverlappingDrainsEndTogether(t *testing.T) {
	// Several drains that wait at the same time are all told, by the last request that ends.
	onEngines(t, func(t *testing.T, c *AioContext) {
		r := newRootOn(t, c)
		var g gate
		onLoop(t, c, func() { g.hold(r, nil) })
		first, second := drainLater(t, r), drainLater(t, r)
		require.Empty(t, first)
		require.Empty(t, second)
		onLoop(t, c, func() { g.q.WakeAll() })
		(<-first).End()
		(<-second).End()
	})
}

func TestDrainDeadlineNamesTheCulprit(t *testing.T) {
	// A drain whose time is over says of which owner and node, how many requests and why, and the Root goes on as if it had not been: one
	// request does not end, another comes meanwhile.
	onEngines(t, func(t *testing.T, c *AioContext) {
		r := newRootOn(t, c)
		var g gate
		onLoop(t, c, func() { g.hold(r, nil) })
		d, err := r.graph.Drain(t.Context(), DrainOptions{Why: "test", Roots: []*Root{r}, Max: time.Millisecond})
		require.Nil(t, d)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Regexp(t, `^drain for test gave up after \S+, waiting for hold \[0x10, \+0x20\) for \S+: context deadline exceeded$`, err.Error())
		var drainError *DrainError
		require.ErrorAs(t, err, &drainError)
		require.Len(t, drainError.Culprits, 1)
		require.Contains(t, drainError.Culprits[0].Stack, "(*gate).hold", "the stack of the Task that is waited for")
		do(t, c, func(t *Task) error {
			var k Ticket
			r.Begin(t, &k)
			r.End(t, &k)
			return nil
		})
		onLoop(t, c, func() { g.q.WakeAll() })
		do(t, c, func(t *Task) error {
			for r.Busy() {
				t.Yield()
			}
			return nil
		})
		d, err = r.Drain(t.Context())
		require.NoError(t, err)
		d.End()
	})
}

func TestRequestsRaceWithDrains_T_X5_T_X6(t *testing.T) {
	// No request runs inside of a section and none is lost, however the two meet: Tasks make requests without a pause while another goroutine
	// drains ten thousand times, twice without a turn in between now and then.
	onEngines(t, func(t *testing.T, c *AioContext) {
		r := newRootOn(t, c)
		var quiet atomic.Bool
		var stop, broken bool
		ended := make(chan struct{}, 4)
		onLoop(t, c, func() {
			for range 4 {
				c.Spawn(BodyFunc(func(t *Task) {
					for !stop {
						var k Ticket
						r.Begin(t, &k)
						broken = broken || quiet.Load()
						t.Yield()
						broken = broken || quiet.Load()
						r.End(t, &k)
						t.Yield()
					}
					ended <- struct{}{}
				}))
			}
		})
		for i := range 10_000 {
			d, err := r.Drain(t.Context())
			require.NoError(t, err)
			quiet.Store(true)
			if i%3 == 0 {
				inner, err := r.Drain(t.Context())
				require.NoError(t, err)
				inner.End()
			}
			quiet.Store(false)
			d.End()
		}
		onLoop(t, c, func() { stop = true })
		for range 4 {
			<-ended
		}
		require.False(t, broken, "a request was in flight in a drained section")
		require.False(t, r.Busy())
	})
}
