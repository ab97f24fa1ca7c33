package uring

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// madeQueues are queues in plain memory, with the indices at start, and a kernel to play against.
type madeQueues struct {
	sq             submissions
	cq             completions
	sqHead, sqTail uint32
	cqHead, cqTail uint32
	flags          uint32
}

func makeQueues(start, sqEntries, cqEntries uint32) *madeQueues {
	m := &madeQueues{sqHead: start, sqTail: start, cqHead: start, cqTail: start}
	m.sq = submissions{khead: &m.sqHead, ktail: &m.sqTail, kflags: &m.flags, mask: sqEntries - 1, sqes: make([]SQE, sqEntries), tail: start}
	m.cq = completions{khead: &m.cqHead, ktail: &m.cqTail, mask: cqEntries - 1, cqes: make([]CQE, cqEntries), head: start}
	return m
}

// kernel takes up to n published entries and completes them, for as long as completions fit.
func (m *madeQueues) kernel(n int) (taken int) {
	for taken < n && m.sqHead != atomic.LoadUint32(&m.sqTail) && m.cqTail-atomic.LoadUint32(&m.cqHead) < uint32(len(m.cq.cqes)) {
		s := m.sq.sqes[m.sqHead&m.sq.mask]
		m.cq.cqes[m.cqTail&m.cq.mask] = CQE{UserData: s.UserData, Res: int32(s.Len)}
		atomic.StoreUint32(&m.cqTail, m.cqTail+1)
		atomic.StoreUint32(&m.sqHead, m.sqHead+1)
		taken++
	}
	return taken
}

func TestQueuesAroundTheWrap(t *testing.T) {
	// Queues full and empty behave the same on both sides of 2^32: filled, taken and reaped round by round from
	// starts just below it.
	for _, start := range []uint32{0, 1<<32 - 1, 1<<32 - 3, 1<<32 - 8, 1<<31 - 2} {
		t.Run(fmt.Sprint(start), func(t *testing.T) {
			m := makeQueues(start, 8, 8)
			out := make([]CQE, 16)
			require.False(t, m.cq.ready())
			for round := range uint64(5) {
				for i := range uint64(8) {
					s := m.sq.next()
					require.NotNil(t, s)
					require.Equal(t, SQE{}, *s, "the entry is not clear")
					*s = SQE{UserData: 8*round + i, Len: 7, Addr3: 1}
				}
				require.Nil(t, m.sq.next(), "one entry too many")
				require.Equal(t, uint32(8), m.sq.pending())
				require.Zero(t, m.kernel(8), "nothing is published yet")
				require.Equal(t, uint32(8), m.sq.publish())
				require.Equal(t, 8, m.kernel(100))
				require.Zero(t, m.sq.pending())
				require.True(t, m.cq.ready())
				require.Equal(t, 3, m.cq.take(out[:3]))
				require.Equal(t, 5, m.cq.take(out[3:]))
				require.Zero(t, m.cq.take(out))
				require.False(t, m.cq.ready())
				for i, c := range out[:8] {
					require.Equal(t, CQE{UserData: 8*round + uint64(i), Res: 7}, c)
				}
			}
		})
	}
}

func TestQueuesModel(t *testing.T) {
	// Everything submitted completes once and in order, whatever the interleaving of our side and the kernel's, wherever
	// the indices start: random steps against a counter.
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.OneOf(rapid.Uint32(), rapid.Uint32Min(1<<32-40)).Draw(t, "start")
		m := makeQueues(start, 1<<rapid.IntRange(0, 4).Draw(t, "sqBits"), 1<<rapid.IntRange(0, 5).Draw(t, "cqBits"))
		var filled, reaped uint64
		t.Repeat(map[string]func(*rapid.T){
			"fill": func(t *rapid.T) {
				if s := m.sq.next(); s != nil {
					s.UserData = filled
					filled++
				}
			},
			"publish": func(*rapid.T) { m.sq.publish() },
			"kernel":  func(t *rapid.T) { m.kernel(rapid.IntRange(1, 20).Draw(t, "n")) },
			"reap": func(t *rapid.T) {
				out := make([]CQE, rapid.IntRange(0, 40).Draw(t, "n"))
				for _, c := range out[:m.cq.take(out)] {
					require.Equal(t, reaped, c.UserData)
					reaped++
				}
			},
			"": func(t *rapid.T) {
				require.Equal(t, m.cqTail != m.cqHead, m.cq.ready())
				require.Equal(t, filled-reaped, uint64(m.sq.pending()+m.cqTail-m.cqHead))
			},
		})
	})
}
