package blockcore

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRange(t *testing.T) {
	// Ranges are compared, checked and widened without overflow up to the largest offset there is: a table for each method.
	const most = math.MaxInt64
	within := []struct {
		r    Range
		size int64
		want bool
	}{
		{Range{0, 0}, 0, true},
		{Range{0, 1}, 0, false},
		{Range{10, 0}, 10, true},
		{Range{11, 0}, 10, false},
		{Range{9, 1}, 10, true},
		{Range{9, 2}, 10, false},
		{Range{-1, 1}, 10, false},
		{Range{1, -1}, 10, false},
		{Range{most, 0}, most, true},
		{Range{most, 1}, most, false},
		{Range{most - 1, 1}, most, true},
		{Range{most, most}, most, false},
		{Range{1, most}, most, false},
		{Range{0, most}, most, true},
		{Range{math.MinInt64, math.MinInt64}, most, false},
	}
	for _, row := range within {
		require.Equal(t, row.want, row.r.Within(row.size), "%v within %d", row.r, row.size)
	}
	overlaps := []struct {
		a, b Range
		want bool
	}{
		{Range{0, 10}, Range{10, 10}, false},
		{Range{0, 11}, Range{10, 10}, true},
		{Range{0, 100}, Range{10, 10}, true},
		{Range{0, 0}, Range{0, 10}, false},
		{Range{most - 1, 1}, Range{0, most}, true},
	}
	for _, row := range overlaps {
		require.Equal(t, row.want, row.a.Overlaps(row.b), "%v and %v", row.a, row.b)
		require.Equal(t, row.want, row.b.Overlaps(row.a), "%v and %v", row.b, row.a)
	}
	const last = most &^ 511
	widened := []struct{ r, want Range }{
		{Range{0, 512}, Range{0, 512}},
		{Range{1, 1}, Range{0, 512}},
		{Range{511, 2}, Range{0, 1024}},
		{Range{last - 1, 1}, Range{last - 512, 512}},
	}
	for _, row := range widened {
		require.Equal(t, row.want, row.r.Widen(512))
		require.True(t, row.r.Widen(512).Aligned(512))
	}
	require.False(t, Range{512, 1}.Aligned(512))
	require.False(t, Range{1, 512}.Aligned(512))
	require.Equal(t, "[0x10, +0x20)", Range{16, 32}.String())
}
