package blockcore

import (
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nbd-dataplane/internal/membuf"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(panicEnv); name != "" {
		panicIn(name)
		return
	}
	goleak.VerifyTestMain(m)
}

// engineKinds are the real engines; what is tested over them holds for both.
var engineKinds = []EngineKind{EngineURing, EngineThreads}

// onEngines runs test once for each engine, on a context that is closed afterwards.
func onEngines(t *testing.T, test func(t *testing.T, c *AioContext)) {
	for _, kind := range engineKinds {
		t.Run(kind.String(), func(t *testing.T) {
			test(t, newTestContext(t, ContextOptions{Engine: kind}))
		})
	}
}

// newTestContext starts a loop with I/O memory of its own. At the end of the test the loop is closed, and
// the pool tells whether a buffer was leaked.
func newTestContext(t testing.TB, o ContextOptions) *AioContext {
	t.Helper()
	pool := membuf.NewPool(1 << 20)
	o.Name, o.Buffers = t.Name(), pool
	c, err := NewAioContext(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		c.Close()
		require.NoError(t, pool.Close(), "a buffer was leaked")
	})
	return c
}

// do runs fn as a Task and demands that it returns no error. Assertions that end a test must not be
// made inside of a Task, whose goroutine is not the test's.
func do(t testing.TB, c *AioContext, fn func(*Task) error) {
	t.Helper()
	require.NoError(t, c.Do(fn))
}

// onLoop runs fn on the loop, in no Task, and waits for its end.
func onLoop(t testing.TB, c *AioContext, fn func()) {
	t.Helper()
	done := make(chan struct{})
	require.True(t, c.Post(func() { fn(); close(done) }))
	<-done
}

// asleep suspends t until its loop sleeps, with everything armed that was hot.
func asleep(t *Task) {
	c := t.Context()
	_ = t.Block(func() error {
		for !c.sleeping.Load() {
			runtime.Gosched()
		}
		return nil
	})
}

// spin passes a random time of less than some 20 us, so that two threads meet in ever different ways.
func spin(rng *rand.Rand) {
	for range rng.IntN(20_000) {
		_ = rng
	}
}

// newRand returns a source of random numbers whose seed is in the log.
func newRand(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}
