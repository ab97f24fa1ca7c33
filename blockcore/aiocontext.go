package blockcore

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
	"nbd-dataplane/internal/membuf"
)

// ErrContextClosed is returned for work that reaches an AioContext after Close.
var ErrContextClosed = errors.New("AioContext is closed")

// ContextOptions configure an AioContext. The zero value is a good choice.
type ContextOptions struct {
	// Name appears in logs and errors.
	Name string
	// Engine chooses who does the I/O; EngineAuto takes io_uring where the kernel allows it.
	Engine EngineKind
	// PollMax bounds how long the loop looks for work before it sleeps. 0 takes
	// PollMaxDefault, a negative value turns polling off.
	PollMax time.Duration
	// Workers is the number of goroutines that may block at once on behalf of the context.
	// 0 takes WorkersDefault.
	Workers int
	// Buffers is the pool of I/O memory; nil takes the one shared by the process.
	Buffers *membuf.Pool

	// clock and newEngine are replaced by tests of the loop itself.
	clock     clock
	newEngine func(*AioContext) (engine, error)
}

// Limits of an AioContext, each with its reason.
const (
	// PollMaxDefault: long enough to bridge the time that a client needs between a reply
	// and its next request at depth 1 (some 20-60 us), short enough to be lost in a sleep.
	PollMaxDefault = 60 * time.Microsecond
	// WorkersDefault is that of QEMU's thread pool.
	WorkersDefault = 64
	// tasksIdleMax is how many finished coroutines are kept for reuse: creating one costs some
	// 500 ns, keeping one a few KiB of stack.
	tasksIdleMax = 256
)

// AioContext is one event loop on one OS thread. All Tasks, Nodes and connections that belong
// to it run there and nowhere else, so what is "Owned by the context" needs no lock.
//
// Analogous to QEMU's AioContext together with its IOThread.
type AioContext struct {
	// Immutable.
	name    string
	clock   clock
	engine  engine
	workers *workerPool
	memory  *membuf.Pool
	stopped chan struct{} // closed when the loop has ended
	between func()        // called between two things that a turn does; nil = nobody looks (Stepped)

	// Owned by the context.
	buffers  *membuf.Cache
	current  *Task   // the Task that runs now; nil in callbacks of the loop itself
	ready    []*Task // to be resumed, in order
	running  []*Task // the batch of ready that is being resumed
	idle     []*Task // finished coroutines
	live     int     // Tasks begun and not finished
	tasks    slots[Task]
	watchers slots[Watcher]
	hot      []*Watcher // looked at in every turn
	turnEnds []TurnEnder
	timers   timerHeap
	backlog  bool // more requests are at hand than the one being started
	polling  pollPolicy
	contest  contest // between looking and sleeping
	begun    uint64  // Tasks, ever
	batch    int64   // of operations that are queued; 0 = no bound (Tuning)
	lulls    int     // that were begun and not ended: see BeginLull
	unwanted int     // requests that nobody waits for any more: see Root.Cancel
	stopping bool
	latest   time.Duration // the clock when it was last read on the loop

	// Guarded by mu.
	mu     sync.Mutex
	posted []func()
	closed bool
	tuning Tuning // as asked for; what the loop goes by is its own

	// Safe from anywhere.
	thread    atomic.Int32 // of the loop, as the kernel numbers it
	hasPosted atomic.Bool
	wakers    atomic.Int32
	sleeping  atomic.Bool // the loop is about to wait, or waits: whoever posts must wake it
}

// TurnEnder is called once at the end of the turn for which it was registered by AtTurnEnd.
type TurnEnder interface{ TurnEnd() }

var sharedBuffers = sync.OnceValue(func() *membuf.Pool { return membuf.NewPool(sharedBuffersCachedMax) })

// sharedBuffersCachedMax bounds the free I/O memory that the process keeps, in bytes.
const sharedBuffersCachedMax = 16 << 20

// SharedBuffers returns the pool of I/O memory of the process. Safe from anywhere.
func SharedBuffers() *membuf.Pool { return sharedBuffers() }

// NewAioContext starts an event loop.
func NewAioContext(o ContextOptions) (*AioContext, error) {
	c, err := newContext(o)
	if err != nil {
		return nil, err
	}
	started := make(chan error)
	addProcessor()
	go c.loop(started)
	if err := <-started; err != nil {
		<-c.stopped
		return nil, fmt.Errorf("AioContext %q: %w", o.Name, err)
	}
	return c, nil
}

// newContext makes a context whose loop does not run.
func newContext(o ContextOptions) (*AioContext, error) {
	c := &AioContext{name: o.Name, clock: o.clock, stopped: make(chan struct{})}
	if c.clock == nil {
		c.clock = newMonotonicClock()
	}
	if o.PollMax == 0 {
		o.PollMax = PollMaxDefault
	}
	if o.Workers == 0 {
		o.Workers = WorkersDefault
	}
	if o.Buffers == nil {
		o.Buffers = SharedBuffers()
	}
	c.memory = o.Buffers
	c.buffers = o.Buffers.NewCache()
	c.workers = newWorkerPool()
	c.contest = newContest()
	c.tuning = Tuning{PollMax: max(o.PollMax, 0), WorkersMax: o.Workers}
	c.take(c.tuning)
	newEngine := o.newEngine
	if newEngine == nil {
		newEngine = o.Engine.open
	}
	e, err := newEngine(c)
	if err != nil {
		return nil, fmt.Errorf("AioContext %q: %w", o.Name, err)
	}
	c.engine = e
	return c, nil
}

// Name returns the name given at creation. Safe from anywhere.
func (c *AioContext) Name() string { return c.name }

// ThreadID returns the kernel's number of the loop's thread. Safe from anywhere.
func (c *AioContext) ThreadID() int { return int(c.thread.Load()) }

// EngineName says who does the I/O: "io_uring" or "threads". Safe from anywhere.
func (c *AioContext) EngineName() string { return c.engine.name() }

// Buffers returns the context's front of the I/O memory. Owned by the context.
func (c *AioContext) Buffers() *membuf.Cache { return c.buffers }

// Now returns the monotonic time of the context's clock.
func (c *AioContext) Now() time.Duration { return c.clock.now() }

// Close ends the loop after all Tasks have finished and waits for that. New work is refused from
// now on, so what still runs must not depend on work to be posted later.
func (c *AioContext) Close() {
	c.mu.Lock()
	if !c.closed {
		// Under one hold of mu: what was accepted comes before the order to stop, and is run.
		c.closed = true
		c.postLocked(func() { c.stopping = true })
	}
	c.mu.Unlock()
	c.wake()
	<-c.stopped
}

// Post has fn run on the loop, in the order of posting. It reports false, and drops fn, when the context
// is closed. Safe from anywhere.
func (c *AioContext) Post(fn func()) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.postLocked(fn)
	c.mu.Unlock()
	c.wake()
	return true
}

// postAlways is Post for what a closed context has to take as well: its loop goes on while a Task waits there, and what comes after its
// end has nothing left to do.
func (c *AioContext) postAlways(fn func()) {
	c.mu.Lock()
	c.postLocked(fn)
	c.mu.Unlock()
	c.wake()
}

// postLocked makes fn visible to the loop, which the caller wakes.
func (c *AioContext) postLocked(fn func()) {
	c.posted = append(c.posted, fn)
	c.hasPosted.Store(true)
}

// wake ends the loop's sleep. Safe from anywhere.
//
// INVARIANT: whoever makes work visible to the loop does so before it calls wake, and the loop
// stores sleeping before it looks for work the last time; so either the loop sees the
// work or wake sees that it sleeps.
func (c *AioContext) wake() {
	c.wakers.Add(1)
	if c.sleeping.Swap(false) {
		c.engine.wake()
	}
	c.wakers.Add(-1)
}

// awaitWakers waits for those who are inside wake. The loop never sleeps again, so whoever comes later leaves
// the engine alone, and its file descriptors can be closed without a late wake-up being written to what
// has their numbers next.
func (c *AioContext) awaitWakers() {
	for c.wakers.Load() > 0 {
		runtime.Gosched()
	}
}

// Do runs fn as a Task of the context and waits for its end. It must not be called on a loop.
func (c *AioContext) Do(fn func(*Task) error) error {
	done := make(chan error, 1)
	ok := c.Post(func() {
		c.Spawn(BodyFunc(func(t *Task) { done <- fn(t) }))
	})
	if !ok {
		return ErrContextClosed
	}
	return <-done
}

// BeginLull has the loop sleep at once when there is nothing to do, until EndLull, where else it would look for work first: who calls it knows that
// what comes next takes longer than looking pays, or that others want the processor. On the loop only.
func (c *AioContext) BeginLull() { c.lulls++ }

// EndLull ends what BeginLull began. On the loop only.
func (c *AioContext) EndLull() { c.lulls-- }

// Doze has the loop sleep at once the next time there is nothing to do, and learn anew how long to look for work: who calls it knows that what comes next takes
// longer than looking pays. Unlike a lull it ends by itself. On the loop only.
func (c *AioContext) Doze() { c.polling.current = 0 }

// AtTurnEnd has e.TurnEnd called when the turn ends, after everything that could be done in it. Registering
// twice calls twice. On the loop only.
func (c *AioContext) AtTurnEnd(e TurnEnder) { c.turnEnds = append(c.turnEnds, e) }

// NotAtTurnEnd takes e back, however often it was registered, and reports whether it was. On the loop only.
func (c *AioContext) NotAtTurnEnd(e TurnEnder) bool {
	found := false
	for i := range c.turnEnds {
		if c.turnEnds[i] == e {
			c.turnEnds[i] = nobody{}
			found = true
		}
	}
	return found
}

// nobody stands in for a TurnEnder that was taken back.
type nobody struct{}

func (nobody) TurnEnd() {}

// Backlog tells the context whether more requests are at hand behind the one that is about to be
// started. Drivers learn it by Task.Alone. On the loop only.
func (c *AioContext) Backlog(more bool) { c.backlog = more }

func (c *AioContext) loop(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.thread.Store(int32(unix.Gettid()))
	defer close(c.stopped)
	defer removeProcessor()
	defer c.workers.close()
	if err := c.engine.start(); err != nil {
		c.engine.close()
		started <- err
		return
	}
	started <- nil
	for !c.finished() {
		if !c.turn() {
			c.rest()
		}
	}
	c.release()
}

func (c *AioContext) finished() bool { return c.stopping && c.live == 0 && !c.hasPosted.Load() }

// release gives back what the loop owns. Nothing runs any more.
func (c *AioContext) release() {
	for _, t := range c.idle {
		t.stop()
	}
	c.idle = nil
	c.buffers.Drain()
	c.awaitWakers()
	c.engine.close()
}

// assertCurrent checks, where the check tag is set, that a Task of c runs: the licence of
// everything that takes a *Task.
func (c *AioContext) assertCurrent(t *Task) {
	if check.Enabled {
		check.Invariant(c.current == t, "a method of a Task was called while it does not run (context %q)", c.name)
	}
}
