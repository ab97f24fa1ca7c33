package blockcore

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: growth and shrinkage of polling are what was asked for, at their extremes too. Method: one policy is told again and again, and
// rests of chosen lengths are reported to it.
func TestPollPolicyIsTuned(t *testing.T) {
	const us = time.Microsecond
	p := newPollPolicy(100 * us)
	p.adjust(10 * us)
	require.Equal(t, 4*us, p.current)
	p.tune(Tuning{PollMax: 100 * us, PollGrow: 10, PollShrink: 4})
	p.adjust(10 * us)
	require.Equal(t, 40*us, p.current, "what was learned stays")
	p.adjust(time.Second)
	require.Equal(t, 10*us, p.current)
	p.tune(Tuning{PollMax: 6 * us})
	require.Equal(t, 6*us, p.current, "a lower limit holds at once")
	p.tune(Tuning{PollMax: math.MaxInt64, PollGrow: math.MaxInt64, PollShrink: math.MaxInt64})
	p.adjust(10 * us)
	require.Equal(t, time.Duration(math.MaxInt64), p.current)
	p.adjust(time.Hour)
	require.Equal(t, time.Duration(math.MaxInt64), p.current)
	p.tune(Tuning{})
	require.Zero(t, p.current, "off")
	p.adjust(us)
	require.Zero(t, p.current)
}

// Goal: a loop that runs takes another tuning, and tells it. Method: it is tuned, and looked at from inside; a closed one is tuned, which
// does nothing.
func TestLoopIsTuned(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	require.Equal(t, Tuning{PollMax: PollMaxDefault, WorkersMax: WorkersDefault}, c.Tuning())
	want := Tuning{PollMax: time.Millisecond, PollGrow: 3, PollShrink: 5, Batch: 7, WorkersMin: 2, WorkersMax: 1 << 30}
	c.Tune(want)
	require.Equal(t, want, c.Tuning())
	require.NoError(t, c.Do(func(*Task) error {
		require.Equal(t, time.Millisecond, c.polling.max)
		require.EqualValues(t, 3, c.polling.grow)
		require.EqualValues(t, 5, c.polling.shrink)
		require.EqualValues(t, 7, c.batch)
		return nil
	}))
	c.workers.mu.Lock()
	require.Equal(t, 2, c.workers.started)
	require.Equal(t, WorkersLimit, c.workers.max)
	c.workers.mu.Unlock()
	c.Close()
	c.Tune(Tuning{})
	require.Equal(t, want, c.Tuning())
}

// Goal: a batch bounds how many operations wait for the kernel. Method: sixteen Tasks of one turn write; each finds no more than the batch
// queued by those before it.
func TestBatchIsSubmitted(t *testing.T) {
	c := newTestContext(t, ContextOptions{})
	fd := tempFile(t, 1<<16)
	c.Tune(Tuning{WorkersMax: 4, Batch: 3})
	var all sync.WaitGroup
	all.Add(16)
	require.True(t, c.Post(func() {
		for range 16 {
			c.Spawn(BodyFunc(func(task *Task) {
				defer all.Done()
				require.Less(t, c.engine.queued(), 3)
				buf := task.Buffers().Get(512)
				defer task.Buffers().Put(buf)
				_, err := task.Pread(fd, buf, 0)
				require.NoError(t, err)
			}))
		}
	}))
	all.Wait()
}

// Goal: the bounds of a pool of workers hold from the moment they are set, in both directions, and no job is left lying. Method: jobs that
// hold their workers until they are told; the number that run at once is counted after each change.
func TestWorkersAreResized(t *testing.T) {
	p := newWorkerPool()
	p.resize(0, 1)
	defer p.close()
	began, goOn := make(chan bool), make(chan bool)
	job := func() { began <- true; <-goOn }
	for range 40 {
		p.run(job)
	}
	<-began
	p.resize(0, 8)
	for range 7 {
		<-began
	}
	p.resize(0, 2)
	for range 6 {
		goOn <- true // these end with their workers
	}
	for range 32 {
		goOn <- true
		<-began
		p.mu.Lock()
		require.LessOrEqual(t, p.started, 2)
		p.mu.Unlock()
	}
	goOn <- true
	goOn <- true
	p.resize(5, 64)
	p.mu.Lock()
	require.Equal(t, 5, p.started)
	p.mu.Unlock()
}
