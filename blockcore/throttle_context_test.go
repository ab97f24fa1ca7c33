package blockcore

import (
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
