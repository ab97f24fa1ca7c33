package blockcore

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNoWakeUpIsLost(t *testing.T) {
	// Each post ends the loop's sleep, at whatever moment it comes: two goroutines make 10^5 posts together, each waits for
	// its own before the next and pauses for a random moment, so that the loop falls asleep all the time. A lost one hangs the test.
	// Scenarios: T-A1.
	for _, kind := range engineKinds {
		t.Run(kind.String(), func(t *testing.T) {
			c := newTestContext(t, ContextOptions{Engine: kind, PollMax: -1})
			rng := newRand(t)
			var wg sync.WaitGroup
			for range 2 {
				own := rand.New(rand.NewPCG(rng.Uint64(), 1))
				wg.Go(func() {
					ran := make(chan struct{}, 1)
					post := func() { ran <- struct{}{} }
					for range 50_000 {
						if own.IntN(4) == 0 {
							spin(own)
						}
						c.Post(post)
						<-ran
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestPostsOfOneGoroutineKeepTheirOrder(t *testing.T) {
	// Posts run in the order in which a goroutine makes them, all of them: four goroutines post 10^5 numbers together without
	// waiting, and the loop compares each with the last of its poster.
	onEngines(t, func(t *testing.T, c *AioContext) {
		const posters, posts = 4, 25_000
		var last [posters]int
		var wg sync.WaitGroup
		for p := range posters {
			wg.Go(func() {
				for i := 1; i <= posts; i++ {
					c.Post(func() {
						if last[p] != i-1 {
							t.Errorf("poster %d: %d ran after %d", p, i, last[p])
						}
						last[p] = i
					})
				}
			})
		}
		wg.Wait()
		onLoop(t, c, func() {})
		require.Equal(t, [posters]int{posts, posts, posts, posts}, last)
	})
}

func TestNoEndOfBlockIsLost(t *testing.T) {
	// A worker that ends wakes the loop: a Task blocks ten thousand times for a random moment, while nothing else
	// keeps the loop awake.
	// Scenarios: T-A14.
	for _, kind := range engineKinds {
		t.Run(kind.String(), func(t *testing.T) {
			c := newTestContext(t, ContextOptions{Engine: kind, PollMax: -1})
			rng := newRand(t)
			do(t, c, func(t *Task) error {
				for range 10_000 {
					if err := t.Block(func() error { spin(rng); return nil }); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
}
