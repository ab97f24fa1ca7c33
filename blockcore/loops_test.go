package blockcore

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// detour is a driver whose reads cannot end before another loop has had its turn.
type detour struct {
	*memory
	other *AioContext
}

func (d *detour) ReadAt(t *Task, p []byte, off int64) error {
	var q WaitQueue
	c := t.Context()
	d.other.Post(func() { c.Post(func() { q.WakeOne() }) })
	t.Wait(&q)
	return d.memory.ReadAt(t, p, off)
}

func TestDrainAcrossLoops_T_D13_T_D14(t *testing.T) {
	// A drain ends although requests need another loop to end, whoever asks for it: an ordinary goroutine, or a Task of the node's own loop by way of the
	// control plane, for one node and for all. Work of the node's own that flushes is waited for as well.
	a, b := newTestContext(t, ContextOptions{}), newTestContext(t, ContextOptions{})
	g := NewGraph()
	n, err := g.AddNode(NodeOptions{Name: "n", Context: a, Driver: &detour{newMemory(4096, Limits{Align: 1}), b}})
	require.NoError(t, err)
	r, err := g.NewRoot(n, RootOptions{Name: "blk", Movable: true})
	require.NoError(t, err)
	for range 100 {
		for _, o := range []DrainOptions{{All: true}, {Nodes: []*Node{n}}} {
			for _, fromTask := range []bool{false, true} {
				var result, flushed atomic.Int32
				onLoop(t, a, func() {
					a.Spawn(BodyFunc(func(t *Task) {
						var k Ticket
						r.Begin(t, &k)
						p := t.Buffers().Get(512)
						if r.Edge().Read(t, p, 0) == nil {
							result.Store(1)
						}
						t.Buffers().Put(p)
						r.End(t, &k)
					}))
					n.Background("flush", func(t *Task) {
						t.Yield()
						if r.Edge().Flush(t) == nil {
							flushed.Store(1)
						}
					})
				})
				var d *Drained
				drain := func() (err error) {
					d, err = g.Drain(context.Background(), o)
					return err
				}
				if fromTask {
					do(t, a, func(t *Task) error { return t.Control(drain) })
				} else {
					require.NoError(t, drain())
				}
				require.Equal(t, int32(1), result.Load())
				require.Equal(t, int32(1), flushed.Load())
				require.Zero(t, n.InFlight())
				d.End()
			}
		}
	}
	require.NoError(t, g.Move(t.Context(), n, b))
	r.Close()
	require.NoError(t, g.RemoveNode(n))
}

func TestOperationsFromOutside_T_I1_to_T_I16(t *testing.T) {
	// Every operation on a node of another loop returns to an ordinary goroutine, those that fail before they have touched a count among them, and leaves
	// nothing in flight: a table of operations with their results.
	c := newTestContext(t, ContextOptions{})
	r := attach(t, c, newMemory(64<<10, Limits{Align: 1}))
	simple := attach(t, c, plain{bare{newMemory(64<<10, Limits{Align: 1})}})
	reader, err := r.graph.NewRoot(r.Node(), RootOptions{Name: "reader"})
	require.NoError(t, err)
	buffer := func(t *Task, op func(p []byte) error) error {
		p := t.Buffers().Get(512)
		defer t.Buffers().Put(p)
		return op(p)
	}
	table := []struct {
		id   string
		root *Root
		op   func(t *Task, e *Edge) error
		want error
	}{
		{"T-I1 T-I3 T-I5", r, func(t *Task, e *Edge) error { return buffer(t, func(p []byte) error { return e.Read(t, p, 0) }) }, nil},
		{"T-I1 T-I3 T-I5", r, func(t *Task, e *Edge) error { return buffer(t, func(p []byte) error { return e.Read(t, p, -2) }) }, syscall.EINVAL},
		{"T-I2 T-I4 T-I6", r, func(t *Task, e *Edge) error { return buffer(t, func(p []byte) error { return e.Write(t, p, 0, 0) }) }, nil},
		{"T-I2 T-I4 T-I6", r, func(t *Task, e *Edge) error { return buffer(t, func(p []byte) error { return e.Write(t, p, -2, 0) }) }, syscall.ENOSPC},
		{"T-I2", reader, func(t *Task, e *Edge) error { return buffer(t, func(p []byte) error { return e.Write(t, p, 0, 0) }) }, syscall.EPERM},
		{"T-I7", r, func(t *Task, e *Edge) error {
			return buffer(t, func(p []byte) error { return e.Write(t, p, 0, WriteCompressed) })
		}, syscall.ENOTSUP},
		{"T-I7", r, func(t *Task, e *Edge) error {
			return buffer(t, func(p []byte) error { return e.Write(t, p, -2, WriteCompressed) })
		}, syscall.ENOSPC},
		{"T-I8", r, func(t *Task, e *Edge) error { return e.WriteZeroes(t, Range{0, 512}, 0) }, nil},
		{"T-I8", r, func(t *Task, e *Edge) error { return e.WriteZeroes(t, Range{-2, 512}, 0) }, syscall.ENOSPC},
		{"T-I11", r, func(t *Task, e *Edge) error { return e.Discard(t, Range{0, 512}, false) }, nil},
		{"T-I11", simple, func(t *Task, e *Edge) error { return e.Discard(t, Range{0, 512}, false) }, nil},
		{"T-I11", r, func(t *Task, e *Edge) error { return e.Discard(t, Range{-2, 512}, false) }, syscall.EINVAL},
		{"T-I13", r, func(t *Task, e *Edge) error { _, err := e.BlockStatus(t, Range{0, 512}, nil, 1); return err }, nil},
		{"T-I13", simple, func(t *Task, e *Edge) error { _, err := e.BlockStatus(t, Range{0, 512}, nil, 1); return err }, nil},
		{"T-I13", r, func(t *Task, e *Edge) error { _, err := e.BlockStatus(t, Range{0, 0}, nil, 1); return err }, syscall.EINVAL},
		{"T-I13", r, func(t *Task, e *Edge) error { _, err := e.BlockStatus(t, Range{1 << 20, 512}, nil, 1); return err }, syscall.EINVAL},
		{"T-I14", r, func(t *Task, e *Edge) error { return e.Flush(t) }, nil},
		{"T-I14", simple, func(t *Task, e *Edge) error { return e.Flush(t) }, nil},
	}
	for i, row := range table {
		err := c.Do(func(t *Task) error { return row.op(t, row.root.Edge()) })
		if row.want == nil {
			require.NoError(t, err, "row %d, %s", i, row.id)
		} else {
			require.ErrorIs(t, err, row.want, "row %d, %s", i, row.id)
		}
		require.Zero(t, row.root.Node().InFlight())
	}
	// T-I12: no size that cannot be is taken, and a driver that has one size says so.
	d, err := simple.graph.Drain(t.Context(), DrainOptions{All: true})
	require.NoError(t, err)
	defer d.End()
	require.ErrorIs(t, simple.graph.Update(t.Context(), "resize", func(tx *Tx) error { return tx.Resize(d, simple.Node(), 512) }), syscall.ENOTSUP)
}

func TestLoopsWakeEachOther_T_M1_T_M2(t *testing.T) {
	// Tasks of five loops that wake one another at random are never lost, and the loops end: each takes whoever sleeps in a random slot, has it woken on its own
	// loop, and goes to sleep in its slot itself.
	rng := newRand(t)
	type sleeper struct {
		loop  *AioContext
		queue *WaitQueue
	}
	var slots [5]atomic.Pointer[sleeper]
	var loops []*AioContext
	for range slots {
		loops = append(loops, newTestContext(t, ContextOptions{}))
	}
	wake := func(s *sleeper) {
		if s != nil {
			s.loop.Post(func() { s.queue.WakeOne() })
		}
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i, c := range loops {
		own := rand.New(rand.NewPCG(rng.Uint64(), uint64(i)))
		wg.Add(1)
		onLoop(t, c, func() {
			c.Spawn(BodyFunc(func(t *Task) {
				defer wg.Done()
				for range 2000 {
					wake(slots[own.IntN(len(slots))].Swap(nil))
					me := &sleeper{loop: c, queue: &WaitQueue{}}
					slots[i].Store(me)
					if stop.Load() && slots[i].CompareAndSwap(me, nil) {
						return
					}
					t.Wait(me.queue)
				}
			}))
		})
	}
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	for turn := 0; ; turn++ {
		select {
		case <-done:
			return
		default:
			// Whoever is left when all others sleep or have ended.
			stop.Store(turn > 1<<16)
			wake(slots[turn%len(slots)].Swap(nil))
			runtime.Gosched()
		}
	}
}

func TestTasksThatWakeEachOtherDoNotNest_T_A13(t *testing.T) {
	// Two Tasks that wake one another 25 000 times each take turns, and neither runs inside of the other: the stack of each is as deep
	// at the end as at the beginning.
	c := newTestContext(t, ContextOptions{})
	var queues [2]WaitQueue
	var counts, deepest [2]int
	ended := make(chan struct{}, 2)
	onLoop(t, c, func() {
		for i := range queues {
			c.Spawn(BodyFunc(func(t *Task) {
				for range 25_000 {
					counts[i]++
					var frames [64]uintptr
					deepest[i] = max(deepest[i], runtime.Callers(0, frames[:]))
					queues[1-i].WakeOne()
					if counts[1-i] < 25_000 {
						t.Wait(&queues[i])
					}
				}
				queues[1-i].WakeOne()
				ended <- struct{}{}
			}))
		}
	})
	<-ended
	<-ended
	require.Equal(t, [2]int{25_000, 25_000}, counts)
	require.Less(t, max(deepest[0], deepest[1]), 16)
}

func TestBellLosesNoRing(t *testing.T) {
	// Whoever waits for a count to come to zero is told, although those who count ring after they have counted and may be interrupted in between: four
	// goroutines count down and ring, with a pause at random between the two, ten thousand times.
	rng := newRand(t)
	var b bell
	for range 10_000 {
		var left atomic.Int32
		left.Store(4)
		for range 4 {
			pause := rng.IntN(3)
			go func() {
				if left.Add(-1) == 0 {
					for range pause {
						runtime.Gosched()
					}
					b.ring()
				}
			}()
		}
		for {
			rung := b.next()
			if left.Load() == 0 {
				break
			}
			runtime.Gosched()
			<-rung
		}
	}
}
