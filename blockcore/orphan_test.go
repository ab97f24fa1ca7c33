package blockcore

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// sender is a client that can be told from others.
type sender string

func (s *sender) String() string { return string(*s) }

// Goal: what reads or changes the range that a request whose client has gone changes comes after it, and nothing else waits for it. Method: two requests of one client, of which one
// only reads, stay in flight; others come before and after it is known that he has gone. They go on when the first two end, or are unwanted.
func TestOrphansGoFirst(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Writable: true})
	require.NoError(t, err)
	gone, there := sender("gone"), sender("there")
	var hold WaitQueue
	var done []string
	ask := func(name string, client *sender, k *Ticket, stays bool) {
		k.Op, k.Client = name, client
		c.Spawn(BodyFunc(func(t *Task) {
			r.Begin(t, k)
			if stays {
				t.Wait(&hold)
			}
			done = append(done, name)
			r.End(t, k)
		}))
	}
	span := func(at int64) Range { return Range{Offset: at, Length: 512} }
	onLoop(t, c, func() {
		ask("old write", &gone, &Ticket{Range: span(0), Changes: true}, true)
		ask("old read", &gone, &Ticket{Range: span(4096)}, true)
	})
	onLoop(t, c, func() { ask("before", &there, &Ticket{Range: span(0), Changes: true}, false) })
	onLoop(t, c, func() { r.Orphan(&gone, 2) })
	onLoop(t, c, func() {
		ask("same", &there, &Ticket{Range: span(511), Changes: true}, false)
		ask("unwanted", &gone, &Ticket{Range: span(0), Changes: true}, false)
		ask("read", &there, &Ticket{Range: span(0)}, false)
		ask("flush", &there, &Ticket{}, false)
		ask("beside", &there, &Ticket{Range: span(512), Changes: true}, false)
		ask("where one reads", &there, &Ticket{Range: span(4096), Changes: true}, false)
	})
	onLoop(t, c, func() {
		require.Equal(t, []string{"before", "flush", "beside", "where one reads"}, done)
		r.Cancel(&gone)
	})
	onLoop(t, c, func() {
		require.Equal(t, "unwanted", done[len(done)-1])
		hold.WakeAll()
	})
	onLoop(t, c, func() {
		require.Equal(t, []string{"old write", "old read", "same", "read"}, done[5:])
		require.Zero(t, r.orphans)
		require.Zero(t, r.InFlight())
	})
	r.Close()
}

// Goal: a request that waits for an orphan goes on when its own client is thrown out, and then waits for no limits. Method: one request a second is let through, five wait
// behind an orphan and are dismissed.
func TestDismissedWaitForNoOrphan(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Writable: true})
	require.NoError(t, err)
	group := NewThrottleGroup("group")
	var limits ThrottleConfig
	limits.IOPSTotal.Avg = 1
	require.NoError(t, group.Configure(limits))
	d, err := r.Drain(t.Context())
	require.NoError(t, err)
	require.NoError(t, g.Update(t.Context(), "limit", func(tx *Tx) error { return tx.SetThrottle(d, r, group) }))
	d.End()
	gone, there := sender("gone"), sender("there")
	var hold WaitQueue
	ended := 0
	ask := func(client *sender, stays bool) {
		k := &Ticket{Client: client, Range: Range{Length: 512}, Changes: true, Limited: true, Direction: ThrottleWrite}
		c.Spawn(BodyFunc(func(t *Task) {
			r.Begin(t, k)
			if stays {
				t.Wait(&hold)
			}
			ended++
			r.End(t, k)
		}))
	}
	onLoop(t, c, func() { ask(&gone, true) })
	onLoop(t, c, func() { r.Orphan(&gone, 1) })
	onLoop(t, c, func() {
		for range 5 {
			ask(&there, false)
		}
	})
	onLoop(t, c, func() {
		require.Zero(t, ended)
		r.Dismiss(&there)
	})
	onLoop(t, c, func() { require.Equal(t, 5, ended) })
	onLoop(t, c, func() { hold.WakeAll() })
	onLoop(t, c, func() { require.Zero(t, r.InFlight()) })
	r.Close()
}

// Goal: many that wait behind many orphans of one place do not all look again at each end of one. Method: it is counted how many Tasks become ready when an orphan ends, in the
// order of their coming.
func TestFollowersOfManyOrphansLookOnce(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g, n := newDisk(t, c)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Writable: true})
	require.NoError(t, err)
	const many = 100
	gone, there := sender("gone"), sender("there")
	var hold WaitQueue
	woken, followed := 0, 0
	ask := func(client *sender, end func(*Task, *Ticket)) {
		k := &Ticket{Client: client, Range: Range{Length: 512}, Changes: true}
		c.Spawn(BodyFunc(func(t *Task) {
			r.Begin(t, k)
			end(t, k)
		}))
	}
	onLoop(t, c, func() {
		for range many {
			ask(&gone, func(t *Task, k *Ticket) {
				t.Wait(&hold)
				before := len(c.ready)
				r.End(t, k)
				woken += len(c.ready) - before
			})
		}
		r.Orphan(&gone, many)
		for range many {
			ask(&there, func(t *Task, k *Ticket) {
				followed++
				r.End(t, k)
			})
		}
	})
	early := 0
	for range many {
		onLoop(t, c, func() {
			early += followed
			hold.WakeOne()
		})
	}
	onLoop(t, c, func() {})
	onLoop(t, c, func() {})
	require.Zero(t, early)
	require.Equal(t, many, followed)
	require.Equal(t, many, woken)
	r.Close()
}
