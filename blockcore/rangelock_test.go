package blockcore

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRangeLocks(t *testing.T) {
	// Requests on overlapping ranges get them in the order of their coming, those that are not exclusive together: scripts of
	// requests that all come at once, with the order in which they get their ranges and give them back.
	const x, s = true, false
	type claim struct {
		r         Range
		exclusive bool
	}
	table := []struct {
		name   string
		claims []claim
		want   string // +n = n got its range, -n = it gave it back
	}{
		{"apart", []claim{{Range{0, 10}, x}, {Range{10, 10}, x}}, "+0 +1 -0 -1"},
		{"shared together", []claim{{Range{0, 10}, s}, {Range{5, 10}, s}}, "+0 +1 -0 -1"},
		{"exclusive one by one", []claim{{Range{0, 10}, x}, {Range{9, 1}, x}, {Range{0, 1}, x}}, "+0 -0 +1 +2 -1 -2"},
		{"exclusive after shared", []claim{{Range{0, 10}, s}, {Range{0, 10}, s}, {Range{0, 10}, x}}, "+0 +1 -0 -1 +2 -2"},
		{"shared after exclusive", []claim{{Range{0, 10}, x}, {Range{0, 10}, s}, {Range{0, 10}, s}}, "+0 -0 +1 +2 -1 -2"},
		{
			"nobody passes one that waits",
			[]claim{{Range{0, 10}, s}, {Range{5, 10}, x}, {Range{12, 1}, s}},
			"+0 -0 +1 -1 +2 -2",
		},
		{
			"a chain has no cycle",
			[]claim{{Range{0, 2}, x}, {Range{1, 2}, x}, {Range{2, 2}, x}, {Range{3, 2}, x}, {Range{0, 5}, x}},
			"+0 -0 +1 -1 +2 -2 +3 -3 +4 -4",
		},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			l := newFakeLoop(t, ContextOptions{PollMax: -1})
			var locks RangeLocks
			l.lines = nil
			l.during(func() {
				for i, c := range row.claims {
					l.Spawn(BodyFunc(func(t *Task) {
						k := locks.Acquire(t, c.r, c.exclusive)
						l.note("+%d", i)
						t.Yield()
						l.note("-%d", i)
						locks.Release(k)
					}))
				}
			})
			l.lines = l.lines[:len(l.lines)-1]
			require.Equal(t, row.want, strings.Join(l.lines, " "))
			require.Empty(t, locks.held)
		})
	}
}

func TestRangeLocksExclude(t *testing.T) {
	// Whoever holds a range alone is alone, and all that ask get their turn: a hundred Tasks with random ranges compare what they hold
	// with what all the others hold.
	onEngines(t, func(t *testing.T, c *AioContext) {
		rng := newRand(t)
		var locks RangeLocks
		held := map[int]*RangeLock{}
		errs := make(chan error, 100)
		onLoop(t, c, func() {
			for i := range 100 {
				c.Spawn(BodyFunc(func(t *Task) {
					var err error
					for range 20 {
						k := locks.Acquire(t, Range{rng.Int64N(50), 1 + rng.Int64N(20)}, rng.IntN(2) == 0)
						for _, other := range held {
							if (other.exclusive || k.exclusive) && other.r.Overlaps(k.r) {
								err = fmt.Errorf("%v and %v are held together", other.r, k.r)
							}
						}
						held[i] = k
						for range rng.IntN(3) {
							t.Yield()
						}
						delete(held, i)
						locks.Release(k)
					}
					errs <- err
				}))
			}
		})
		for range 100 {
			require.NoError(t, <-errs)
		}
		require.Empty(t, locks.held)
	})
}
