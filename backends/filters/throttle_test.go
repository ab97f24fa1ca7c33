package filters

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// slow is a group that lets one request through and no other in the time of a test.
func slow(t *testing.T) *blockcore.ThrottleGroup {
	g := blockcore.NewThrottleGroup("slow")
	require.NoError(t, g.Configure(blockcore.ThrottleConfig{BPSTotal: blockcore.ThrottleLimit{Avg: 1}}))
	return g
}

// waiting waits until n requests wait in a throttle.
func waiting(t *testing.T, m *blockcore.ThrottleMember, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return m.Waiting() == n }, time.Minute, time.Millisecond)
}

// Goal: a drain never waits for a limit: waiting requests go on at once, and the limits are back afterwards; method: requests of
// each kind wait for years, a section, and one more.
func TestThrottleNeverHoldsUpADrain(t *testing.T) {
	group := slow(t)
	f, err := NewThrottle(ThrottleOptions{Group: group})
	require.NoError(t, err)
	r := newRig(t, f)
	require.Equal(t, []string{"top"}, group.Members())
	require.NoError(t, <-r.startWrite(0, make([]byte, 4096))) // the bucket is full now
	whole := blockcore.Range{Length: 4096}
	pending := []<-chan error{
		r.startRead(0, 4096),
		r.startWrite(0, make([]byte, 4096)),
		r.start("zero", whole, func(t *blockcore.Task, e *blockcore.Edge) error { return e.WriteZeroes(t, whole, 0) }),
		r.start("discard", whole, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Discard(t, whole, false) }),
		r.start("prefetch", whole, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Prefetch(t, whole) }),
	}
	waiting(t, f.Member(), len(pending))
	require.NoError(t, <-r.start("flush", blockcore.Range{}, func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) }))
	_, _, ok := r.root.Edge().CachedFile(whole)
	require.False(t, ok, "a cached file would pass the limits by")
	for _, n := range []*blockcore.Node{r.top, r.disk} {
		d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Nodes: []*blockcore.Node{n}, Max: time.Minute})
		require.NoError(t, err)
		for _, done := range pending {
			require.NoError(t, <-done)
		}
		d.End()
		pending = []<-chan error{r.startWrite(0, make([]byte, 4096))}
		waiting(t, f.Member(), 1)
	}
	require.NoError(t, group.Configure(blockcore.ThrottleConfig{}))
	require.NoError(t, <-pending[0])
	r.requireStill()
	r.root.Close()
	require.NoError(t, r.graph.RemoveNode(r.top))
	require.Empty(t, group.Members(), "who is removed leaves")
}

// Goal: a throttle follows its node to another context, whether somebody uses it or not; method: move it both ways, a request waiting
// before and after.
func TestThrottleFollowsItsNode(t *testing.T) {
	group := slow(t)
	f, err := NewThrottle(ThrottleOptions{Group: group})
	require.NoError(t, err)
	r := newRig(t, f)
	other := blocktest.NewContext(t, blockcore.EngineURing)
	require.NoError(t, <-r.startRead(0, 4096))
	before := r.startRead(0, 4096)
	waiting(t, f.Member(), 1)
	require.NoError(t, r.graph.Move(context.Background(), r.disk, other))
	require.NoError(t, <-before)
	after := r.startRead(0, 4096)
	waiting(t, f.Member(), 1)
	require.NoError(t, group.Configure(blockcore.ThrottleConfig{}))
	require.NoError(t, <-after)
	r.requireStill()
	r.root.Close()
	// Nobody uses it now: it is brought along by whoever is put on top, without a section.
	wrapped, err := r.graph.AddNode(blockcore.NodeOptions{
		Name: "wrapped", Context: r.ctx, Driver: &blockcore.Filter{}, Children: []blockcore.ChildOptions{{Role: blockcore.RoleFile, Node: r.top}},
	})
	require.NoError(t, err)
	r.own(wrapped)
	require.Same(t, r.ctx, r.top.Context())
	require.NoError(t, <-r.startRead(0, 4096))
}

// Goal: reopening moves a throttle to another group, or leaves all as it was; method: reopen with each, once in a change that fails.
func TestThrottleChangesItsGroup(t *testing.T) {
	_, err := NewThrottle(ThrottleOptions{})
	require.EqualError(t, err, "Please specify a throttle group")
	first, second := slow(t), blockcore.NewThrottleGroup("second")
	f, err := NewThrottle(ThrottleOptions{Group: first})
	require.NoError(t, err)
	r := newRig(t, f)
	reopen := func(options any, fail error) error {
		return r.drained(func(tx *blockcore.Tx, d *blockcore.Drained) error {
			if err := tx.Reopen(d, r.top, options); err != nil {
				return err
			}
			return fail
		}, r.top)
	}
	require.ErrorIs(t, reopen(ThrottleOptions{Group: second}, context.Canceled), context.Canceled)
	require.Error(t, reopen(ThrottleOptions{}, nil))
	require.Error(t, reopen(RawOptions{}, nil))
	require.Equal(t, []string{"top"}, first.Members())
	require.Empty(t, second.Members())
	require.NoError(t, <-r.startRead(0, 4096))
	held := r.startRead(0, 4096)
	waiting(t, f.Member(), 1)
	require.NoError(t, reopen(ThrottleOptions{Group: second}, nil))
	require.NoError(t, <-held)
	require.Empty(t, first.Members())
	require.Equal(t, []string{"top"}, second.Members())
	require.NoError(t, <-r.startRead(0, 4096), "the second group limits nothing")
	r.requireStill()
}

// Goal: a throttle that is made in a drained section of everything has its limits when the section has ended; method: make one, and
// a request that would wait, in the section and behind it.
func TestThrottleBornQuiet(t *testing.T) {
	group := slow(t)
	r := newRig(t, &blockcore.Filter{})
	d, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{All: true})
	require.NoError(t, err)
	f, err := NewThrottle(ThrottleOptions{Group: group})
	require.NoError(t, err)
	n := r.insert("throttle", f)
	d.End()
	require.Zero(t, n.Quiesced())
	require.NoError(t, <-r.startRead(0, 4096))
	held := r.startRead(0, 4096)
	waiting(t, f.Member(), 1)
	r.remove(n)
	require.NoError(t, <-held)
	require.Empty(t, group.Members())
	r.requireStill()
}
