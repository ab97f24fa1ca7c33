package blockcore

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// levelDelta is how much levels may differ from what a person computes.
const levelDelta = 1e-6

func TestThrottleBucketLeaks(t *testing.T) {
	// T-T1: levels fall at the rates of the limit and never below 0. The numbers are those of QEMU's test.
	b := throttleBucket{limit: ThrottleLimit{Avg: 150}, level: 1.5}
	for _, want := range []float64{0.5, 0, 0} {
		b.leak(time.Second / 150)
		require.InDelta(t, want, b.level, levelDelta)
	}

	b = throttleBucket{limit: ThrottleLimit{Avg: 150, Max: 250, MaxLength: 2}, level: 6, burstLevel: 6}
	for _, want := range []float64{3.5, 1, 0, 0} {
		b.leak(10 * time.Millisecond)
		require.InDelta(t, want, b.burstLevel, levelDelta)
	}
}

func TestThrottleBucketSaysHowLongToWait(t *testing.T) {
	// T-T2: nobody waits below the size of the bucket, and above it just until the excess has leaked. The numbers are those of QEMU's test.
	for _, row := range []struct {
		name  string
		limit ThrottleLimit
		level float64
		want  time.Duration
	}{
		{"no limit", ThrottleLimit{Max: 15}, 15.5, 0},
		{"full", ThrottleLimit{Avg: 150, Max: 15}, 15, 0},
		{"not full", ThrottleLimit{Avg: 150, Max: 15}, 14, 0},
		{"half an operation too much", ThrottleLimit{Avg: 150, Max: 15}, 15.5, time.Second / 150 / 2},
		{"a tenth of a second without burst rate", ThrottleLimit{Avg: 150}, 15, 0},
		{"half an operation above that", ThrottleLimit{Avg: 150}, 15.5, time.Second / 150 / 2},
		{"longer than a time can be", ThrottleLimit{Avg: 1}, 1e18, throttleWaitMax},
	} {
		b := throttleBucket{limit: row.limit, level: row.level}
		require.Equal(t, row.want, b.wait(), row.name)
	}
}

func TestThrottleBucketLimitsBursts(t *testing.T) {
	// T-T2, the second half: requests come at the burst rate for more than two seconds, ten times a second. They run
	// while the burst lasts, and then wait as the average wants it.
	b := throttleBucket{limit: ThrottleLimit{Avg: 10, Max: 200, MaxLength: 2}}
	for i := range 22 {
		b.pour(20)
		b.leak(100 * time.Millisecond)
		require.InDelta(t, 0, b.burstLevel, levelDelta)
		require.InDelta(t, float64(i+1)*19, b.level, levelDelta)
		want := time.Duration(0)
		if i == 21 {
			want = 1800 * time.Millisecond
		}
		require.InDelta(t, want, b.wait(), 1, "tick %d", i)
	}

	b = throttleBucket{limit: ThrottleLimit{Avg: 10, Max: 200, MaxLength: 2}}
	b.pour(30)
	require.Equal(t, 50*time.Millisecond, b.wait(), "within a burst no more than a tenth of a second at its rate runs at once")
}

func TestThrottleBucketsBegin(t *testing.T) {
	// T-T3, T-T4, T-T5, T-T15: after configure all levels are 0, whatever they were, and time counts from now; limits come
	// back as they were set. QEMU's three tests of init differ in which timers exist; here a timer exists only while it is armed
	// (TestThrottleTimersExistOnlyWhileArmed).
	c := ThrottleConfig{
		BPSTotal: ThrottleLimit{Avg: 100, Max: 300, MaxLength: 2},
		IOPSRead: ThrottleLimit{Avg: 10}, IOPSWrite: ThrottleLimit{Avg: 20, Max: 30},
		IOPSSize: 13,
	}
	s := throttleBuckets{config: ThrottleConfig{IOPSSize: 99}, leaked: 5}
	for i := range s.bucket {
		s.bucket[i] = throttleBucket{ThrottleLimit{1, 2, 3}, 4, 5}
	}
	s.configure(c, time.Hour)
	require.Equal(t, c, s.config)
	require.Equal(t, time.Hour, s.leaked)
	for i, limit := range c.limits() {
		require.Equal(t, throttleBucket{limit: *limit}, s.bucket[i])
	}
}

func TestThrottleBucketsCountRequests(t *testing.T) {
	// T-T16: a read and a write of the same length are counted in total and each by itself, bytes whatever the size of an operation,
	// operations as fractions of it. Whether there is a limit makes no difference.
	const size = 64 * 512
	for _, row := range []struct {
		avg, iopsSize, bytes int64
		operations           float64 // of one request
	}{
		{150, 0, size, 1},
		{150, 13 * 512, size, 64. / 13},
		{300, 13 * 512, size, 64. / 13},
		{0, 13 * 512, size, 64. / 13},
		{150, 64 * 512, size, 1},
		{150, 128 * 512, size, 1},
	} {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			limit := ThrottleLimit{Avg: row.avg}
			var s throttleBuckets
			s.configure(ThrottleConfig{
				BPSTotal: limit, BPSRead: limit, BPSWrite: limit,
				IOPSTotal: limit, IOPSRead: limit, IOPSWrite: limit,
				IOPSSize: row.iopsSize,
			}, 0)
			s.account(ThrottleRead, row.bytes)
			s.account(ThrottleWrite, row.bytes)
			require.InDelta(t, 2*float64(row.bytes), s.bucket[bpsTotal].level, levelDelta)
			require.InDelta(t, float64(row.bytes), s.bucket[bpsRead].level, levelDelta)
			require.InDelta(t, float64(row.bytes), s.bucket[bpsWrite].level, levelDelta)
			require.InDelta(t, 2*row.operations, s.bucket[iopsTotal].level, levelDelta)
			require.InDelta(t, row.operations, s.bucket[iopsRead].level, levelDelta)
			require.InDelta(t, row.operations, s.bucket[iopsWrite].level, levelDelta)
		})
	}
}

func TestThrottleBucketsTakeTheLongestWait(t *testing.T) {
	// A request waits for the fullest of its buckets and for none of the other direction: one bucket after the other is over-full.
	for place, both := range [throttleLimits]bool{bpsTotal: true, iopsTotal: true} {
		var s throttleBuckets
		for i := range s.bucket {
			s.bucket[i].limit.Avg = 10
		}
		s.bucket[place].level = 2
		for d := range throttleDirections {
			want := time.Duration(0)
			if both || place == bucketsOf[d][1] || place == bucketsOf[d][3] {
				want = 100 * time.Millisecond
			}
			require.Equal(t, want, s.wait(d), "%v while bucket %d is too full", d, place)
		}
	}
}
