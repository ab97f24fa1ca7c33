package raw

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: one slow inline write costs a short detour, a stretch of them an ever longer one, and quick writes none;
// method: a script of writes against a clock of its own.
func TestPace(t *testing.T) {
	var p pace
	now := time.Hour
	write := func(took time.Duration, n int) {
		now += took
		p.observe(now, took, n)
	}
	detour := func() time.Duration {
		begin := now
		for !p.inline(now) {
			now += 100 * time.Microsecond
		}
		return now - begin
	}
	write(20*time.Microsecond, 4096)
	require.Zero(t, detour(), "a quick write")
	write(paceSlow, 4096)
	require.Zero(t, detour(), "the limit itself is quick")
	write(2*time.Millisecond, 4<<20)
	require.Zero(t, detour(), "a long write may take longer")
	write(2*time.Millisecond, 4096)
	require.Equal(t, paceDetourMin, detour())
	for want := 2 * paceDetourMin; want < paceDetourMax; want *= 2 {
		write(3*time.Millisecond, 4096)
		require.Equal(t, want, detour())
	}
	for range 3 {
		write(3*time.Millisecond, 4096)
		require.Equal(t, paceDetourMax, detour(), "bounded")
	}
	write(10*time.Microsecond, 4096)
	require.Zero(t, detour())
	now += 2 * paceDetourMax
	write(2*time.Millisecond, 4096)
	require.Equal(t, paceDetourMin, detour(), "quick for long enough: it begins anew")
}

// Goal: the zero value of pace, at the beginning of the clock, writes inline; method: ask.
func TestPaceZeroValue(t *testing.T) {
	var p pace
	require.True(t, p.inline(0))
	p.observe(0, time.Second, 0)
	require.False(t, p.inline(0))
	require.True(t, p.inline(paceDetourMin))
}
