package blockcore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// throttleEvent is a request that comes, or one that runs.
type throttleEvent struct {
	runs   bool
	at     time.Duration
	member int
	d      ThrottleDirection
	bytes  int64
	number int // of the request, in the order of coming
}

// throttleHistory is all that happened in a random run, in order.
type throttleHistory struct {
	script *throttleScript
	config ThrottleConfig
	events []throttleEvent
	asked  []throttleEvent // by number
}

func newThrottleHistory(t *rapid.T, s *throttleScript, c ThrottleConfig, names ...string) *throttleHistory {
	h := &throttleHistory{script: s, config: c}
	s.loop.lines = nil
	s.reset(t, c, names...)
	s.ran = func(_ *ThrottleMember, _ ThrottleDirection, _ int64, name string) {
		var number int
		_, _ = fmt.Sscanf(name[1:], "%d", &number)
		e := h.asked[number]
		e.runs, e.at = true, s.loop.Now()
		h.events = append(h.events, e)
	}
	return h
}

func (h *throttleHistory) ask(member int, d ThrottleDirection, bytes int64) {
	e := throttleEvent{at: h.script.loop.Now(), member: member, d: d, bytes: bytes, number: len(h.asked)}
	h.asked = append(h.asked, e)
	h.events = append(h.events, e)
	h.script.ask(h.script.members[member], bytes, fmt.Sprintf("%c%d", "rw"[d], e.number))
}

func (h *throttleHistory) askRandom(t *rapid.T) {
	member := rapid.IntRange(0, len(h.script.members)-1).Draw(t, "member")
	d := rapid.SampledFrom([]ThrottleDirection{ThrottleRead, ThrottleWrite}).Draw(t, "direction")
	bytes := rapid.Int64Range(1, 2048).Draw(t, "sectors") * 512
	for range rapid.IntRange(1, 6).Draw(t, "requests") {
		h.ask(member, d, bytes)
	}
}

func (h *throttleHistory) passRandom(t *rapid.T) {
	h.script.pass(rapid.SampledFrom([]time.Duration{
		time.Microsecond, time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond, 5 * time.Second, time.Minute,
	}).Draw(t, "pass"))
}

func drawThrottleConfig(t *rapid.T) ThrottleConfig {
	var c ThrottleConfig
	limit := func(label string, least, most int64) (l ThrottleLimit) {
		l.Avg = rapid.Int64Range(least, most).Draw(t, label)
		if rapid.Bool().Draw(t, label+" bursts") {
			l.Max = l.Avg * rapid.Int64Range(1, 8).Draw(t, label+" burst")
			l.MaxLength = rapid.Int64Range(0, 4).Draw(t, label+" length")
		}
		return l
	}
	kind := func(label string, least, most int64, total, read, write *ThrottleLimit) {
		switch rapid.SampledFrom([]string{"none", "total", "read", "write", "both"}).Draw(t, label) {
		case "total":
			*total = limit(label+" total", least, most)
		case "read":
			*read = limit(label+" read", least, most)
		case "write":
			*write = limit(label+" write", least, most)
		case "both":
			*read, *write = limit(label+" read", least, most), limit(label+" write", least, most)
		}
	}
	kind("bytes", 1_000, 10_000_000, &c.BPSTotal, &c.BPSRead, &c.BPSWrite)
	kind("operations", 1, 10_000, &c.IOPSTotal, &c.IOPSRead, &c.IOPSWrite)
	if c.IOPSTotal.Avg+c.IOPSRead.Avg+c.IOPSWrite.Avg > 0 {
		c.IOPSSize = rapid.SampledFrom([]int64{0, 4096, 100_000}).Draw(t, "iops-size")
	}
	return c
}

func TestThrottleKeepsLimitsInAnyRun(t *testing.T) {
	// Whatever limits, members, requests and pauses there are: no bucket lets more through in any span of time than it holds and
	// its rate allows, nobody waits while the limits would have let them run, members take turns, each keeps its order, and in the end
	// all have run. The laws are computed here from what happened, without looking into the group.
	s := newThrottleScript(t, ThrottleConfig{})
	rapid.Check(t, func(t *rapid.T) {
		h := newThrottleHistory(t, s, drawThrottleConfig(t), "a", "b", "c")
		defer s.releaseAll()
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				h.passRandom(t)
			} else {
				h.askRandom(t)
			}
		}
		s.passAll()
		s.expectIdle()
		h.requireOrder(t)
		h.requireTurns(t)
		for place, limit := range h.config.limits() {
			if limit.Avg > 0 {
				h.requireBounds(t, place, *limit)
			}
		}
		h.requireFullUse(t)
	})
}

func TestThrottleForgetsNobodyInAnyRun(t *testing.T) {
	// Members are suspended and resumed, join and leave, and limits change, in any order while requests wait: those of a suspended
	// member run at once, each member keeps its order, in the end all have run and no timer is left. The check build looks at the
	// group after each step as well.
	s := newThrottleScript(t, ThrottleConfig{})
	rapid.Check(t, func(t *rapid.T) {
		h := newThrottleHistory(t, s, drawThrottleConfig(t), "a", "b", "c")
		suspended := map[*ThrottleMember]int{}
		left := map[int]bool{}
		member := func() int { return rapid.IntRange(0, len(s.members)-1).Draw(t, "of") }
		defer s.releaseAll()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			i := member()
			m := s.members[i]
			switch rapid.SampledFrom([]string{"ask", "ask", "pass", "suspend", "resume", "configure", "leave"}).Draw(t, "what") {
			case "ask":
				if !left[i] {
					h.ask(i, ThrottleDirection(rapid.IntRange(0, 1).Draw(t, "direction")), 4096)
				}
			case "pass":
				h.passRandom(t)
			case "suspend":
				m.Suspend()
				suspended[m]++
			case "resume":
				if suspended[m] > 0 {
					m.Resume()
					suspended[m]--
				}
			case "configure":
				require.NoError(t, s.group.Configure(drawThrottleConfig(t)))
			case "leave":
				if suspended[m] > 0 && !left[i] && m.Waiting() == 0 {
					m.Leave()
					left[i] = true
					s.join(m.name + "'")
				}
			}
			s.step(0)
			for m, times := range suspended {
				require.True(t, times == 0 || m.Waiting() == 0, "a request of a suspended member waits")
			}
			require.Equal(t, len(armedTimers(s.group)), len(s.loop.timers), "timers of the loop and of the group")
		}
		for m, times := range suspended {
			for range times {
				m.Resume()
			}
		}
		s.passAll()
		s.expectIdle()
		h.requireOrder(t)
	})
}

// requireOrder demands that all have run, those of one member and direction in the order of coming.
func (h *throttleHistory) requireOrder(t require.TestingT) {
	last := map[string]int{}
	ran := 0
	for _, e := range h.events {
		if !e.runs {
			continue
		}
		queue := fmt.Sprint(e.member, e.d)
		require.GreaterOrEqual(t, e.number, last[queue], "member %s: a request has overtaken another", queue)
		last[queue] = e.number
		ran++
	}
	require.Len(t, h.asked, ran, "not all requests have run")
}

// requireTurns demands that no member runs two requests while another that waits runs none.
func (h *throttleHistory) requireTurns(t require.TestingT) {
	var waiting [throttleDirections][8]int
	var passed [throttleDirections][8][8]int // by whom each has been passed since its last turn
	for _, e := range h.events {
		w, p := &waiting[e.d], &passed[e.d]
		if !e.runs {
			if w[e.member] == 0 {
				clear(p[e.member][:])
			}
			w[e.member]++
			continue
		}
		w[e.member]--
		clear(p[e.member][:])
		for other := range w {
			if w[other] > 0 && other != e.member {
				p[other][e.member]++
				require.LessOrEqual(t, p[other][e.member], 1, "member %d ran %ds again while %d waits", e.member, e.d, other)
			}
		}
	}
}

// units returns what a request counts in a bucket; 0 if it is not of the bucket's kind.
func (h *throttleHistory) units(e throttleEvent, place int) float64 {
	if !slices.Contains(bucketsOf[e.d][:], place) {
		return 0
	}
	if place <= bpsWrite {
		return float64(e.bytes)
	}
	if h.config.IOPSSize == 0 {
		return 1
	}
	return max(1, float64(e.bytes)/float64(h.config.IOPSSize))
}

// requireBounds demands of every span of time that no more runs in it than the bucket holds and its rate lets through, and in bursts
// likewise. Each direction may fill the bucket with one request above that.
func (h *throttleHistory) requireBounds(t require.TestingT, place int, l ThrottleLimit) {
	var most [throttleDirections]float64
	for _, e := range h.asked {
		most[e.d] = max(most[e.d], h.units(e, place))
	}
	const early = 2e-9 // seconds: waits are cut to whole ns
	above := most[ThrottleRead] + most[ThrottleWrite] + float64(max(l.Avg, l.Max))*early + 1e-3
	for i, first := range h.events {
		sum := 0.0
		for _, e := range h.events[i:] {
			if !e.runs {
				continue
			}
			sum += h.units(e, place)
			seconds := (e.at - first.at).Seconds()
			require.LessOrEqual(t, sum, l.size()+float64(l.Avg)*seconds+above, "bucket %d: too much between %v and %v", place, first.at, e.at)
			if l.MaxLength > 1 {
				require.LessOrEqual(t, sum, float64(l.Max)/10+float64(l.Max)*seconds+above, "bucket %d: too much of a burst between %v and %v", place, first.at, e.at)
			}
		}
	}
}

// lateness is how much later than at the first moment a request may run: the fake loop takes its time to look around.
const lateness = 3 * time.Microsecond

// requireFullUse demands of each request that waited that it could not have run earlier: a moment before it ran, one
// of its buckets was full.
func (h *throttleHistory) requireFullUse(t require.TestingT) {
	var buckets [throttleLimits]struct{ level, burst float64 }
	var last time.Duration
	for _, e := range h.events {
		if !e.runs {
			continue
		}
		full := false
		for place, l := range h.config.limits() {
			b := &buckets[place]
			seconds := (e.at - last).Seconds()
			b.level = max(0, b.level-float64(l.Avg)*seconds)
			b.burst = max(0, b.burst-float64(l.Max)*seconds)
			if l.Avg > 0 && slices.Contains(bucketsOf[e.d][:], place) {
				late := lateness.Seconds()
				full = full || b.level+float64(l.Avg)*late > l.size()-1e-6 ||
					l.MaxLength > 1 && b.burst+float64(l.Max)*late > float64(l.Max)/10-1e-6
			}
		}
		last = e.at
		if e.at > h.asked[e.number].at {
			require.True(t, full, "request %d came at %v and ran at %v, when no bucket was full", e.number, h.asked[e.number].at, e.at)
		}
		for place := range buckets {
			buckets[place].level += h.units(e, place)
			buckets[place].burst += h.units(e, place)
		}
	}
}
