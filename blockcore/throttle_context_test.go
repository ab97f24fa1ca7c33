package blockcore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// throttleLoad is what comes from one member: requests that are started in order on its context.
type throttleLoad struct {
	member *ThrottleMember
	last   [throttleDirections]int // number of the last that ran; owned by the context
	done   sync.WaitGroup
	errors atomic.Int64 // requests that have overtaken others
}

// start starts requests, half of them reads.
func (l *throttleLoad) start(c *AioContext, requests int) {
	for i := 1; i <= requests; i++ {
		l.done.Add(1)
		d := ThrottleDirection(i % 2)
		c.Post(func() {
			c.Spawn(BodyFunc(func(t *Task) {
				defer l.done.Done()
				l.member.Admit(t, d, 4096)
				if l.last[d] > i {
					l.errors.Add(1)
				}
				l.last[d] = i
			}))
		})
	}
}

// finish waits until all have run.
func (l *throttleLoad) finish(t *testing.T) {
	l.done.Wait()
	require.Zero(t, l.errors.Load(), "requests have overtaken others of their direction")
	require.Zero(t, l.member.Waiting())
}

func TestThrottleAcrossContexts(t *testing.T) {
	// Two members on two loops with engines of their own share a limit: all requests run, each member's in order, and not faster
	// than the limit allows.
	const requests, rate = 600, 10_000
	contexts := []*AioContext{
		newTestContext(t, ContextOptions{Engine: EngineURing}),
		newTestContext(t, ContextOptions{Engine: EngineThreads}),
	}
	g := NewThrottleGroup("g")
	require.NoError(t, g.Configure(ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: rate}, BPSRead: ThrottleLimit{Avg: 1 << 30}}))
	begin := time.Now()
	var loads []*throttleLoad
	for _, c := range contexts {
		l := &throttleLoad{member: g.Join(c, c.Name())}
		loads = append(loads, l)
		l.start(c, requests)
	}
	for _, l := range loads {
		l.finish(t)
	}
	atOnce := rate/10 + 2.0
	least := time.Duration((2*requests - atOnce) / rate * float64(time.Second))
	require.GreaterOrEqual(t, time.Since(begin), least)
	require.Empty(t, armedTimers(g))
	for _, l := range loads {
		l.member.Leave()
	}
}

func TestThrottleTurnsAcrossLoops(t *testing.T) {
	// Turns go from loop to loop, each timer is on the loop of the member whose turn is next, and time is the same for all, though
	// each loop's clock and the group's begin at different times. Two fake loops, resumed one after the other.
	g := newThrottleGroup("g", newFakeClock(77*time.Hour))
	require.NoError(t, g.Configure(tenPerSecond))
	loops := map[string]*fakeLoop{"a": newFakeLoop(t, ContextOptions{PollMax: -1}), "b": newFakeLoop(t, ContextOptions{PollMax: -1})}
	loops["b"].time.advance(5 * time.Hour)
	var lines []string
	step := func(d time.Duration) {
		g.clock.(*fakeClock).advance(d)
		loops["a"].time.advance(d)
		loops["b"].time.advance(d)
		for _, name := range []string{"a", "b", "a", "b"} { // what one posts to the other is done as well
			loops[name].Post(func() {})
			loops[name].resume(0)
		}
	}
	members := map[string]*ThrottleMember{}
	t.Cleanup(func() { // or a failure would hang
		for _, m := range members {
			m.Suspend()
		}
		step(0)
	})
	for _, name := range []string{"a", "b"} {
		members[name] = g.Join(loops[name].AioContext, name)
		loops[name].Post(func() {
			for i := range 4 {
				loops[name].Spawn(BodyFunc(func(t *Task) {
					members[name].Admit(t, ThrottleRead, 512)
					at := (g.clock.now() - 77*time.Hour).Round(time.Millisecond)
					lines = append(lines, fmt.Sprintf("%v %s%d", at, name, i))
				}))
			}
		})
	}
	for range 8 {
		step(0)
		require.LessOrEqual(t, len(loops["a"].timers)+len(loops["b"].timers), 1)
		step(100 * time.Millisecond)
	}
	require.Equal(t, []string{"0s a0", "0s a1", "100ms a2", "200ms b0", "300ms a3", "400ms b1", "500ms b2", "600ms b3"}, lines)
	require.Empty(t, armedTimers(g))
}

func TestThrottleUnderChanges(t *testing.T) {
	// Limits change, and members are suspended and resumed, from goroutines that are on no loop while requests come on two loops: no
	// request is lost or overtaken. A random choice of some 10^3 changes; the race detector and the check build look on.
	contexts := []*AioContext{newTestContext(t, ContextOptions{}), newTestContext(t, ContextOptions{PollMax: -1})}
	g := NewThrottleGroup("g")
	loads := []*throttleLoad{{member: g.Join(contexts[0], "a")}, {member: g.Join(contexts[1], "b")}, {member: g.Join(contexts[1], "c")}}
	var over atomic.Bool
	var changes sync.WaitGroup
	rng := newRand(t)
	for _, l := range loads {
		own := rand.New(rand.NewPCG(rng.Uint64(), 1))
		changes.Go(func() {
			for !over.Load() {
				l.member.Suspend()
				spin(own)
				l.member.Resume()
				_ = g.Configure(ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: own.Int64N(3) * 50_000}})
				spin(own)
			}
		})
	}
	for i, l := range loads {
		l.start(contexts[min(i, 1)], 2000)
	}
	for _, l := range loads {
		l.done.Wait()
	}
	over.Store(true)
	changes.Wait()
	for _, l := range loads {
		l.finish(t)
		l.member.Leave()
	}
	require.Empty(t, armedTimers(g))
	for _, c := range contexts {
		onLoop(t, c, func() {}) // timers taken back from elsewhere are off the loop once it has run what was posted
		onLoop(t, c, func() {
			if len(c.timers) > 0 {
				t.Error("a timer is armed on the loop and nobody waits")
			}
		})
	}
}

func TestThrottleMemberMoves(t *testing.T) {
	// T-T8: a member goes from one context to the other and back, suspended and with nobody waiting, as a drain leaves it. Requests
	// wait and run on the loop that it is on each time, another member on the first loop waits all the time.
	contexts := []*AioContext{newTestContext(t, ContextOptions{}), newTestContext(t, ContextOptions{})}
	g := NewThrottleGroup("g")
	require.NoError(t, g.Configure(ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: 2000}}))
	stays := &throttleLoad{member: g.Join(contexts[0], "stays")}
	stays.start(contexts[0], 600)
	moves := &throttleLoad{member: g.Join(contexts[0], "moves")}
	for round := range 10 {
		c := contexts[round%2]
		moves.member.Suspend()
		moves.done.Wait()
		require.Zero(t, moves.member.Waiting())
		moves.member.Move(c)
		moves.member.Resume()
		moves.last = [throttleDirections]int{}
		moves.start(c, 10)
	}
	moves.member.Suspend()
	moves.finish(t)
	moves.member.Leave()
	stays.member.Suspend()
	stays.finish(t)
	stays.member.Leave()
}

func TestThrottledRequestsOutliveClose(t *testing.T) {
	// A context that closes waits for its Tasks, those included that wait for the limits or for the turn of a member on another loop: it
	// runs timers and takes wake-ups until they have run.
	contexts := []*AioContext{newTestContext(t, ContextOptions{}), newTestContext(t, ContextOptions{})}
	g := NewThrottleGroup("g")
	require.NoError(t, g.Configure(ThrottleConfig{IOPSTotal: ThrottleLimit{Avg: 2000}}))
	var loads []*throttleLoad
	for _, c := range contexts {
		l := &throttleLoad{member: g.Join(c, c.Name())}
		loads = append(loads, l)
		l.start(c, 150)
	}
	var closed sync.WaitGroup
	for _, c := range contexts {
		closed.Go(c.Close)
	}
	closed.Wait()
	for _, l := range loads {
		l.finish(t)
		l.member.Leave()
	}
	require.Empty(t, armedTimers(g))
}

// BenchmarkThrottleAdmit is what a request pays that is not held up: in no group, in one without limits, in one with limits
// that it does not reach.
func BenchmarkThrottleAdmit(b *testing.B) {
	limited := NewThrottleGroup("limited")
	if err := limited.Configure(ThrottleConfig{BPSTotal: ThrottleLimit{Avg: throttleValueMax}}); err != nil {
		b.Fatal(err)
	}
	c := newTestContext(b, ContextOptions{})
	for name, m := range map[string]*ThrottleMember{
		"none": nil, "no limits": NewThrottleGroup("free").Join(c, "m"), "limits": limited.Join(c, "m"),
	} {
		b.Run(name, func(b *testing.B) {
			do(b, c, func(t *Task) error {
				for b.Loop() {
					m.Admit(t, ThrottleRead, 1)
				}
				return nil
			})
		})
	}
}
