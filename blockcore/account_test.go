package blockcore

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: a node counts its requests as QEMU does. Method: a table of requests that succeed, that the driver fails, and that do not reach it,
// each with what it adds; a filter on top counts the same.
func TestRequestsAreCounted(t *testing.T) {
	eio := fmt.Errorf("disk: %w", syscall.EIO)
	table := []struct {
		op      string
		r       Range
		err     error // of the driver
		kind    RequestKind
		want    Tally
		highest int64
	}{
		{"read", Range{0, 4096}, nil, KindRead, Tally{Done: 1, Bytes: 4096}, 0},
		{"read", Range{700, 9000}, nil, KindRead, Tally{Done: 1, Bytes: 9000}, 0},
		{"read", Range{0, 4096}, eio, KindRead, Tally{Failed: 1}, 0},
		{"read", Range{1 << 20, 4096}, nil, KindRead, Tally{Invalid: 1}, 0},
		{"write", Range{512, 1024}, nil, KindWrite, Tally{Done: 1, Bytes: 1024}, 1536},
		{"write", Range{512, 1024}, eio, KindWrite, Tally{Failed: 1}, 1536},
		{"write", Range{1 << 20, 512}, nil, KindWrite, Tally{Invalid: 1}, 0},
		{"write zeroes", Range{0, 8192}, nil, KindWrite, Tally{Done: 1, Bytes: 8192}, 8192},
		{"write zeroes", Range{0, 8192}, eio, KindWrite, Tally{Failed: 1}, 8192},
		{"discard", Range{512, 1024}, nil, KindDiscard, Tally{Done: 1, Bytes: 1024}, 0},
		{"discard", Range{512, 1024}, eio, KindDiscard, Tally{Failed: 1}, 0},
		{"discard", Range{1 << 20, 512}, nil, KindDiscard, Tally{Invalid: 1}, 0},
		{"flush", Range{}, nil, KindFlush, Tally{Done: 1}, 0},
		{"flush", Range{}, eio, KindFlush, Tally{Failed: 1}, 0},
	}
	c := newTestContext(t, ContextOptions{})
	for _, row := range table {
		t.Run(fmt.Sprint(row.op, row.r, row.err), func(t *testing.T) {
			m := newMemory(64<<10, Limits{Align: 512})
			r := attach(t, c, m)
			m.fail = func(string) error { return row.err }
			before, err := r.Node().Stats()
			require.NoError(t, err)
			require.Equal(t, NodeStats{Idle: -1}, before)
			_ = c.Do(func(t *Task) error { return doOp(t, r.Edge(), row.op, row.r) })
			s, err := r.Node().Stats()
			require.NoError(t, err)
			require.Equal(t, row.want.Done == 1, s.Idle >= 0, "only what was done ends the idleness")
			got := s.Of[row.kind]
			require.Equal(t, row.want.Done == 1, got.Time > 0)
			got.Time, s.Of[row.kind] = 0, Tally{}
			require.Equal(t, row.want, got)
			require.Equal(t, [requestKinds]Tally{}, s.Of)
			require.Equal(t, row.highest, s.HighestWrite)
			require.Equal(t, row.op == "write zeroes" && row.err == nil, s.Zeroes == 1)
		})
	}
}

// doOp does one of edgeOps, or a flush.
func doOp(t *Task, e *Edge, name string, r Range) error {
	for _, op := range edgeOps {
		if op.name == name {
			return op.call(t, e, r)
		}
	}
	return e.Flush(t)
}

// handClock is a clock that stands until a test moves it.
type handClock struct{ at atomic.Int64 }

func (c *handClock) now() time.Duration { return time.Duration(c.at.Load()) }

// Goal: the time of a request is what passed in it, also for several in one turn. Method: a clock that only the driver moves, by three
// seconds a request; then the idle time is moved on.
func TestTimesOfRequests(t *testing.T) {
	clock := &handClock{}
	clock.at.Store(int64(time.Hour))
	c := newTestContext(t, ContextOptions{PollMax: -1, clock: clock})
	m := newMemory(64<<10, Limits{Align: 1})
	r := attach(t, c, m)
	m.fail = func(string) error { clock.at.Add(int64(3 * time.Second)); return nil }
	do(t, c, func(t *Task) error {
		for range 2 {
			if err := doOp(t, r.Edge(), "read", Range{0, 512}); err != nil {
				return err
			}
		}
		return r.Edge().Flush(t)
	})
	clock.at.Add(int64(time.Minute))
	s, err := r.Node().Stats()
	require.NoError(t, err)
	require.Equal(t, 6*time.Second, s.Of[KindRead].Time)
	require.Equal(t, 3*time.Second, s.Of[KindFlush].Time)
	require.Equal(t, time.Minute, s.Idle)
}

// Goal: a read that is sent past the drivers counts at each node that it came by. Method: a filter, whose edge is told of one.
func TestReadsPastTheDriverAreCounted(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	g := NewGraph()
	_, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: newMemory(4096, Limits{Align: 1})})
	require.NoError(t, err)
	top, err := g.AddNode(NodeOptions{Name: "top", Context: c, Driver: &Filter{}, Children: []ChildOptions{{Role: RoleFile, Node: g.Node("disk")}}})
	require.NoError(t, err)
	r, err := g.NewRoot(top, RootOptions{Name: "owner"})
	require.NoError(t, err)
	do(t, c, func(t *Task) error { r.Edge().Sent(t, t.Latest(), 512); return nil })
	for _, name := range []string{"disk", "top"} {
		s, err := g.Node(name).Stats()
		require.NoError(t, err)
		require.EqualValues(t, 1, s.Of[KindRead].Done, name)
		require.EqualValues(t, 512, s.Of[KindRead].Bytes, name)
	}
}
