package blockcore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDoReturnsTheError(t *testing.T) {
	// Do gives back what its Task returns, and runs Tasks of many goroutines at once: a hundred of them, each with an
	// error of its own.
	onEngines(t, func(t *testing.T, c *AioContext) {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				want := fmt.Errorf("error %d", i)
				got := c.Do(func(t *Task) error {
					t.Yield()
					return want
				})
				if got != want {
					t.Errorf("Do returned %v, not %v", got, want)
				}
			})
		}
		wg.Wait()
	})
}

func TestSleepsEndInOrder(t *testing.T) {
	// Sleeping Tasks wake in the order of their times and not before: ten Tasks sleep for 10 to 100 ms, started the longest first. The times are that far apart
	// because the loop may lose its processor between two looks at the clock.
	const apart = 10 * time.Millisecond
	onEngines(t, func(t *testing.T, c *AioContext) {
		var order []int
		do(t, c, func(t *Task) error {
			begin, left := c.Now(), 10
			var early error
			for i := 10; i > 0; i-- {
				c.Spawn(BodyFunc(func(s *Task) {
					s.Sleep(time.Duration(i)*apart - (c.Now() - begin))
					if c.Now()-begin < time.Duration(i)*apart {
						early = errors.New("a sleep ended early")
					}
					order = append(order, i)
					left--
				}))
			}
			for left > 0 {
				t.Sleep(time.Millisecond)
			}
			return early
		})
		require.Equal(t, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, order)
	})
}

func TestBlock(t *testing.T) {
	// Block runs functions beside the loop, no more at once than there are workers, returns their errors, and the loop goes
	// on meanwhile: a thousand Tasks block on four workers, which wait for one another and for a post.
	// Scenarios: T-P1, T-P2, T-P3, T-P4.
	for _, kind := range engineKinds {
		t.Run(kind.String(), func(t *testing.T) {
			const workers, tasks = 4, 1000
			c := newTestContext(t, ContextOptions{Engine: kind, Workers: workers})
			var running, most atomic.Int64
			var wg sync.WaitGroup
			full := make(chan struct{})
			var once sync.Once
			for i := range tasks {
				wg.Add(1)
				want := fmt.Errorf("error %d", i)
				require.True(t, c.Post(func() {
					c.Spawn(BodyFunc(func(b *Task) {
						defer wg.Done()
						err := b.Block(func() error {
							n := running.Add(1)
							defer running.Add(-1)
							for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
							}
							if n == workers {
								once.Do(func() { close(full) })
							}
							<-full
							return want
						})
						if err != want {
							t.Errorf("Block returned %v, not %v", err, want)
						}
					}))
				}))
			}
			onLoop(t, c, func() {})
			wg.Wait()
			require.Equal(t, int64(workers), most.Load())
		})
	}
}

func TestWaitQueueIsFIFO(t *testing.T) {
	// Tasks that wait are woken first come first served, one by one or all together, and a Task that waits again is behind
	// the others: a transcript of five Tasks.
	l := newFakeLoop(t, ContextOptions{PollMax: -1})
	var q WaitQueue
	l.lines = nil
	require.True(t, q.Empty())
	require.False(t, q.WakeOne())
	l.during(func() {
		for i := range 5 {
			l.Spawn(BodyFunc(func(t *Task) {
				t.Wait(&q)
				l.note("%d", i)
				if i == 0 {
					t.Wait(&q)
					l.note("%d again", i)
				}
			}))
		}
	})
	require.False(t, q.Empty())
	l.during(func() { q.WakeOne() })
	l.during(func() { q.WakeOne(); q.WakeOne() })
	l.during(func() { q.WakeAll() })
	require.True(t, q.Empty())
	l.expect("wait 8ms\n0\nwait 8ms\n1\n2\nwait 8ms\n3\n4\n0 again\nwait 8ms")
}

func TestClosedContextRefuses(t *testing.T) {
	// After Close nothing is taken any more, and Close can be called again: Do, Post and a Drain are tried.
	onEngines(t, func(t *testing.T, c *AioContext) {
		n, err := NewGraph().AddNode(NodeOptions{Name: "n", Context: c, Driver: newMemory(0, Limits{Align: 1})})
		require.NoError(t, err)
		r, err := n.graph.NewRoot(n, RootOptions{Name: "r"})
		require.NoError(t, err)
		c.Close()
		c.Close()
		require.False(t, c.Post(func() { t.Error("posted work ran after Close") }))
		require.ErrorIs(t, c.Do(func(*Task) error { return nil }), ErrContextClosed)
		d, err := r.Drain(t.Context())
		require.NoError(t, err, "nothing is in flight on a context that is closed")
		d.End()
	})
}

func TestCloseWaitsForTasks(t *testing.T) {
	// Close returns after all Tasks have ended, whatever they wait for: one sleeps, one blocks, one does I/O, one waits
	// for another.
	// Scenarios: T-M1.
	onEngines(t, func(t *testing.T, c *AioContext) {
		fd := tempFile(t, 4096)
		var ended atomic.Int64
		closing := make(chan struct{})
		onLoop(t, c, func() {
			var q WaitQueue
			bodies := []func(*Task){
				func(t *Task) { t.Sleep(20 * time.Millisecond); q.WakeAll() },
				func(t *Task) { _ = t.Block(func() error { <-closing; return nil }) },
				func(t *Task) { _ = t.Fdatasync(fd); t.Yield() },
				func(t *Task) { t.Wait(&q) },
			}
			for _, body := range bodies {
				c.Spawn(BodyFunc(func(t *Task) { body(t); ended.Add(1) }))
			}
		})
		go close(closing)
		c.Close()
		require.Equal(t, int64(4), ended.Load())
	})
}

func TestCloseRunsWhatWasAccepted(t *testing.T) {
	// What Post has accepted runs, even if Close comes at the same moment: goroutines post until they are refused, in a
	// few hundred contexts that are closed meanwhile.
	for _, kind := range engineKinds {
		t.Run(kind.String(), func(t *testing.T) {
			for range 100 {
				c, err := NewAioContext(ContextOptions{Engine: kind})
				require.NoError(t, err)
				var accepted, ran atomic.Int64
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for c.Do(func(*Task) error { ran.Add(1); return nil }) == nil {
							accepted.Add(1)
						}
					})
				}
				onLoop(t, c, func() {})
				c.Close()
				wg.Wait()
				require.Equal(t, accepted.Load(), ran.Load())
			}
		})
	}
}

func TestTasksAreReused(t *testing.T) {
	// Finished coroutines are used again, no more are kept than tasksIdleMax, and the others give their slot back: twice as
	// many Tasks are alive at once, and then the same again.
	// Scenarios: T-C1.
	onEngines(t, func(t *testing.T, c *AioContext) {
		for range 2 {
			var q WaitQueue
			ran := 0
			onLoop(t, c, func() {
				for range 2 * tasksIdleMax {
					c.Spawn(BodyFunc(func(t *Task) { t.Wait(&q); ran++ }))
				}
				if c.live != 2*tasksIdleMax {
					t.Errorf("%d Tasks live", c.live)
				}
				q.WakeAll()
			})
			do(t, c, func(t *Task) error {
				for c.live > 1 {
					t.Yield()
				}
				return nil
			})
			onLoop(t, c, func() {
				if ran != 2*tasksIdleMax || len(c.idle) != tasksIdleMax || c.live != 0 {
					t.Errorf("%d ran, %d are kept, %d live", ran, len(c.idle), c.live)
				}
				if used := len(c.tasks.table) - len(c.tasks.free); used != tasksIdleMax {
					t.Errorf("%d slots are in use", used)
				}
			})
		}
	})
}

func TestDeepStacksSurviveSuspension(t *testing.T) {
	// A Task may suspend at any depth of its stack, which grows on the way: a recursion suspends in each of its thousand levels,
	// in ten Tasks by turns.
	// Scenarios: T-C1.
	onEngines(t, func(t *testing.T, c *AioContext) {
		var descend func(t *Task, depth int) int
		descend = func(t *Task, depth int) int {
			if depth == 0 {
				return 0
			}
			var pad [128]int
			pad[depth%len(pad)] = depth
			t.Yield()
			sum := descend(t, depth-1)
			t.Yield()
			return sum + pad[depth%len(pad)]
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				err := c.Do(func(t *Task) error {
					if sum := descend(t, 1000); sum != 1000*1001/2 {
						return fmt.Errorf("sum is %d", sum)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// panicEnv makes the test binary one that panics in a Task of the engine that it names.
const panicEnv = "BLOCKCORE_TEST_PANIC"

func panicIn(name string) {
	for _, kind := range engineKinds {
		if name != kind.String() {
			continue
		}
		c, err := NewAioContext(ContextOptions{Engine: kind})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		_ = c.Do(func(t *Task) error {
			t.Yield()
			panic("a Task broke")
		})
	}
}

func TestPanicInATaskEndsTheProcess(t *testing.T) {
	// A panic in a Task is not swallowed by the coroutine or by the loop: another process panics, and its end and its message
	// are looked at.
	for _, kind := range engineKinds {
		t.Run(kind.String(), func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), panicEnv+"="+kind.String())
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit)
			require.Equal(t, 2, exit.ExitCode())
			require.True(t, strings.HasPrefix(string(out), "panic: a Task broke"), "%s", out)
		})
	}
}
