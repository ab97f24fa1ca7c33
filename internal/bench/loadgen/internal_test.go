package loadgen

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSpans checks how a range is divided: random loads share it, sequential ones do not
// overlap, and a step leaves room between blocks.
func TestSpans(t *testing.T) {
	s := Spec{BlockBytes: 4096, StepBytes: 4096, Conns: 3, OffsetBytes: 8192, RangeBytes: 10 * 4096}
	got, err := s.spans(1 << 20)
	require.NoError(t, err)
	require.Equal(t, []span{{8192, 10}, {8192, 10}, {8192, 10}}, got)
	s.Sequential = true
	got, err = s.spans(1 << 20)
	require.NoError(t, err)
	require.Equal(t, []span{{8192, 3}, {8192 + 3*4096, 3}, {8192 + 6*4096, 3}}, got)
	s.Sequential, s.StepBytes = false, 16384
	got, err = s.spans(1 << 20)
	require.NoError(t, err)
	require.Equal(t, []span{{8192, 2}, {8192, 2}, {8192, 2}}, got)
}

// TestPattern checks that the pattern depends on the offset alone, by filling a range at
// once and in unaligned pieces, and that one changed bit is found where it is.
func TestPattern(t *testing.T) {
	whole := make([]byte, 4096)
	fillPattern(whole, 12345)
	pieces := make([]byte, 4096)
	for at := 0; at < len(pieces); at += 333 {
		fillPattern(pieces[at:min(at+333, len(pieces))], 12345+int64(at))
	}
	require.Equal(t, whole, pieces)
	require.Equal(t, -1, mismatch(whole, 12345))
	require.NotEqual(t, -1, mismatch(whole, 12345+4096))
	whole[1000] ^= 1
	require.Equal(t, 1000, mismatch(whole, 12345))
}

// TestGeneratorSpread checks that offsets reach every part of their range about equally,
// by sorting many of them into bins.
func TestGeneratorSpread(t *testing.T) {
	const bins, draws = 16, 160_000
	g := newGenerator(0, 0)
	var count [bins]int
	for range draws {
		count[g.below(bins)]++
	}
	for _, n := range count {
		require.InDelta(t, draws/bins, n, draws/bins/10)
	}
	require.NotEqual(t, newGenerator(1, 0), newGenerator(1, 1))
}
