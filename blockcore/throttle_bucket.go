package blockcore

import "time"

// throttleBucket is one leaky bucket: what runs is poured in, what the limit allows leaks out, and who finds it too full
// waits until it is not.
//
//	level       leaks at the average rate, and may reach the size of the bucket
//	burstLevel  leaks at the burst rate; counted where bursts last longer than a second
//
// A bucket without burst rate holds a tenth of a second at the average rate, so that reads and writes which come in groups
// are not slowed down. One with a burst rate holds what flows at it in MaxLength seconds; when these are several, burstLevel keeps
// all of it from running in the first moment.
//
// Units are fractions: an operation longer than the size of one counts as more than one.
//
// Analogous to QEMU's LeakyBucket.
type throttleBucket struct {
	// Guarded by group.mu.
	limit             ThrottleLimit
	level, burstLevel float64
}

// throttleWaitMax bounds a wait, which a limit of one byte a second stretches without end, so that times never overflow.
const throttleWaitMax = 100 * 365 * 24 * time.Hour

// leak lets d pass.
func (b *throttleBucket) leak(d time.Duration) {
	seconds := float64(d) / float64(time.Second)
	b.level = max(b.level-float64(b.limit.Avg)*seconds, 0)
	if b.limit.bursts() {
		b.burstLevel = max(b.burstLevel-float64(b.limit.Max)*seconds, 0)
	}
}

// pour adds what runs.
func (b *throttleBucket) pour(units float64) {
	b.level += units
	if b.limit.bursts() {
		b.burstLevel += units
	}
}

// wait returns how long to wait until the next may run, 0 = not at all. Both levels must have fallen: QEMU looks at
// the second only if the first is not too high, and lets more than a burst through when both are.
func (b *throttleBucket) wait() time.Duration {
	if b.limit.Avg == 0 {
		return 0
	}
	wait := time.Duration(0)
	if extra := b.level - b.limit.size(); extra > 0 {
		wait = timeOf(extra, b.limit.Avg)
	}
	if extra := b.burstLevel - float64(b.limit.Max)/10; b.limit.bursts() && extra > 0 {
		wait = max(wait, timeOf(extra, b.limit.Max))
	}
	return wait
}

// timeOf returns how long units take at a rate per second.
func timeOf(units float64, rate int64) time.Duration {
	d := units * float64(time.Second) / float64(rate)
	return time.Duration(min(d, float64(throttleWaitMax)))
}

// bursts reports whether bursts may last for several seconds.
func (l ThrottleLimit) bursts() bool { return l.length() > 1 }

// size is what the bucket holds.
func (l ThrottleLimit) size() float64 {
	if l.Max == 0 {
		return float64(l.Avg) / 10
	}
	return float64(l.Max) * float64(l.length())
}

// throttleBuckets are the buckets of a group. Each request is poured into four of them and waits for the fullest.
//
// Analogous to QEMU's ThrottleState.
type throttleBuckets struct {
	// Guarded by group.mu.
	config ThrottleConfig
	bucket [throttleLimits]throttleBucket
	leaked time.Duration // when the buckets last leaked, by the group's clock
}

// bucketsOf are the buckets of each direction: bytes in the first two, operations in the others.
var bucketsOf = [throttleDirections][4]int{
	ThrottleRead:  {bpsTotal, bpsRead, iopsTotal, iopsRead},
	ThrottleWrite: {bpsTotal, bpsWrite, iopsTotal, iopsWrite},
}

// configure empties the buckets and gives them other limits.
func (s *throttleBuckets) configure(c ThrottleConfig, now time.Duration) {
	*s = throttleBuckets{config: c, leaked: now}
	for i, limit := range c.limits() {
		s.bucket[i].limit = *limit
	}
}

// leak lets the time since the last call pass.
func (s *throttleBuckets) leak(now time.Duration) {
	passed := now - s.leaked
	s.leaked = now
	if passed <= 0 {
		return
	}
	for i := range s.bucket {
		s.bucket[i].leak(passed)
	}
}

// wait returns how long the next request of a direction waits.
func (s *throttleBuckets) wait(d ThrottleDirection) time.Duration {
	longest := time.Duration(0)
	for _, i := range bucketsOf[d] {
		longest = max(longest, s.bucket[i].wait())
	}
	return longest
}

// account pours in one request.
func (s *throttleBuckets) account(d ThrottleDirection, bytes int64) {
	operations := 1.0
	if size := s.config.IOPSSize; size > 0 && bytes > size {
		operations = float64(bytes) / float64(size)
	}
	of := bucketsOf[d]
	s.bucket[of[0]].pour(float64(bytes))
	s.bucket[of[1]].pour(float64(bytes))
	s.bucket[of[2]].pour(operations)
	s.bucket[of[3]].pour(operations)
}
