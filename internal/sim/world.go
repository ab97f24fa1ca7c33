package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
)

// Config says which run it is, and how long.
type Config struct {
	Seed     uint64
	Requests int             // about as many before the clients slow down
	Changes  int             // of each goroutine of the control plane
	Without  map[string]bool // kinds of changes that are left out
	Trace    bool            // take down what happens
}

// Result is what came of a run.
type Result struct {
	Failure string // "" = none
	Trace   []string
	Hash    uint64 // of the trace
	Counts  map[string]int
}

// world is one simulation. What stands under no heading belongs to whoever runs, which is one goroutine at a time.
type world struct {
	// Immutable.
	cfg    Config
	rng    *rand.Rand // of the scheduler
	graph  *blockcore.Graph
	loops  []*blockcore.Stepped
	groups []*blockcore.ThrottleGroup
	jobs   *blockcore.Jobs
	pool   *membuf.Pool
	begun  time.Time

	layers   []driver // in the graph
	owners   []*owner
	sections []*section
	volumes  []*volume
	locked   map[*volume]bool       // contents are being changed by somebody who drains
	wakers   map[string]*controller // who makes a change by Graph.Change, by the name of its section
	running  *blockcore.Stepped
	ticks    int64
	tags     uint64
	serial   int // of names
	requests int
	workers  int // controllers that change things
	jobbing  int // jobs
	ended    bool
	weights  [3]int // of a loop, a controller, time

	stepping  sync.Mutex // held while a loop does something
	steps     int
	preempted int   // the step after which a controller was last preempted
	updating  int   // Updates under way
	attended  int   // nodes that they remove or resize
	updated   int64 // tick at which the last began or ended
	lastCalm  int64 // tick at which all loops were idle
	lastMoved time.Duration

	// Guarded by mu.
	mu       sync.Mutex
	parked   []*controller
	unparked int  // controllers that are neither parked nor ended
	solo     bool // there was one of them when the scheduler last decided
	brief    int  // changes under way that loops may make
	failure  string
	trace    []string
	counts   map[string]int
}

// stuckMax is how much time may pass without any request or change coming to its end. Drains take less (drainMax).
const stuckMax = 3 * drainMax

// Run runs one simulation. It is called in a bubble of testing/synctest.
func Run(cfg Config) Result {
	w := &world{
		cfg: cfg, pool: membuf.NewPool(1 << 20), begun: time.Now(),
		locked: map[*volume]bool{}, wakers: map[string]*controller{}, counts: map[string]int{},
	}
	w.rng = w.stream("scheduler")
	for i := range w.weights[:2] {
		w.weights[i] = []int{1, 3, 10}[w.rng.IntN(3)]
	}
	w.weights[2] = w.rng.IntN(2)
	w.graph = blockcore.NewGraphWith(blockcore.GraphOptions{OnWake: w.wake})
	w.jobs = blockcore.NewJobs(w.graph)
	for i := range 2 + w.rng.IntN(2) {
		w.loops = append(w.loops, blockcore.NewStepped(fmt.Sprintf("loop%d", i), w.pool))
	}
	for i := range 2 {
		w.groups = append(w.groups, blockcore.NewThrottleGroup(fmt.Sprintf("group%d", i)))
	}
	w.launch("main", (*controller).main)
	w.run()
	if w.failure == "" {
		w.close()
	}
	h := fnv.New64a()
	for _, line := range w.trace {
		h.Write([]byte(line))
	}
	return Result{w.failure, w.trace, h.Sum64(), w.counts}
}

// stream returns random numbers of its own for a part of the simulation: what one part draws does not change what another does.
func (w *world) stream(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(w.cfg.Seed, h.Sum64()))
}

// run decides what happens next until the run is over or something is wrong.
func (w *world) run() {
	for {
		synctest.Wait()
		if w.ended || w.failed() {
			return
		}
		w.choose()
	}
}

// choose has one loop, one controller or time go on.
func (w *world) choose() {
	loops := w.runnable()
	if len(loops) == 0 {
		w.lastCalm = w.tick()
	}
	ready := w.eligible()
	total := w.weights[0]*len(loops) + w.weights[1]*len(ready)
	if total == 0 {
		w.pass()
		return
	}
	switch n := w.rng.IntN(total*20 + w.weights[2]); {
	case n >= total*20:
		w.sleep(time.Duration(w.rng.IntN(100)) * time.Microsecond)
	case n/20 < w.weights[0]*len(loops):
		w.step(loops[n/20/w.weights[0]])
	default:
		w.grant(ready[(n/20-w.weights[0]*len(loops))/w.weights[1]])
	}
}

func (w *world) runnable() []*blockcore.Stepped {
	var list []*blockcore.Stepped
	for _, l := range w.loops {
		if l.Runnable() {
			list = append(list, l)
		}
	}
	return list
}

// step has a loop do one thing.
func (w *world) step(l *blockcore.Stepped) {
	w.stepping.Lock()
	defer w.stepping.Unlock()
	w.steps++
	w.mu.Lock()
	w.solo = w.unparked == 1
	w.mu.Unlock()
	w.stepLocked(l)
}

func (w *world) stepLocked(l *blockcore.Stepped) {
	defer w.rescue(l.Name())
	w.running = l
	l.Step()
	w.running = nil
}

// rescue makes a broken invariant the failure of the run.
func (w *world) rescue(who string) {
	if p := recover(); p != nil {
		w.fail("%s: panic: %v\n%s", who, p, stack())
	}
}

// eligible returns the parked controllers that may go on now, by name: the order in which they have parked may be that of the Go
// scheduler.
func (w *world) eligible() []*controller {
	w.mu.Lock()
	defer w.mu.Unlock()
	sort.Slice(w.parked, func(i, j int) bool { return w.parked[i].name < w.parked[j].name })
	var list []*controller
	for _, c := range w.parked {
		if c.rest <= w.now() {
			list = append(list, c)
		}
	}
	return list
}

func (w *world) grant(c *controller) {
	w.mu.Lock()
	w.parked = slices.DeleteFunc(w.parked, func(other *controller) bool { return other == c })
	w.unparked++
	w.solo = w.unparked == 1
	w.mu.Unlock()
	w.lastMoved = w.now()
	c.turn <- struct{}{}
}

// pass lets time pass until something may happen.
func (w *world) pass() {
	const most = 10 * time.Millisecond
	d := most
	for _, l := range w.loops {
		if at, ok := l.Timer(); ok {
			d = min(d, at)
		}
	}
	w.mu.Lock()
	for _, c := range w.parked {
		d = min(d, c.rest-w.now())
	}
	w.mu.Unlock()
	w.sleep(max(d, 1))
	if w.now()-w.lastMoved > stuckMax {
		w.fail("nothing has come to an end for %v: %s", stuckMax, w.describe())
	}
}

// sleep lets time pass; the deadlines of drains end meanwhile.
func (w *world) sleep(d time.Duration) {
	w.mu.Lock()
	w.solo = false
	w.mu.Unlock()
	time.Sleep(d)
}

// describe tells what is under way.
func (w *world) describe() string {
	var lines []string
	for _, o := range w.owners {
		lines = append(lines, fmt.Sprintf("root %s: %d in flight, quiesced %t, %d connections", o.name, o.root.InFlight(), o.still, o.live))
	}
	for _, d := range w.layers {
		if l := d.common(); l.node != nil {
			lines = append(lines, fmt.Sprintf("node %s: %d in flight, quiesced %t", l.name, l.node.InFlight(), l.still))
		}
	}
	return strings.Join(lines, "\n")
}

func (w *world) now() time.Duration { return time.Since(w.begun) }

// progress notes that something has come to its end.
func (w *world) progress() { w.lastMoved = w.now() }

func (w *world) tick() int64 {
	w.ticks++
	return w.ticks
}

func (w *world) newTag() uint64 {
	w.tags++
	return w.tags
}

func (w *world) newName(kind string) string {
	w.serial++
	return fmt.Sprintf("%s%d", kind, w.serial)
}

// calm reports that loops have done all that the changes of the graph have told them to do.
func (w *world) calm() bool { return w.updating == 0 && w.updated < w.lastCalm }

func (w *world) loopOf(ctx *blockcore.AioContext) *blockcore.Stepped {
	for _, l := range w.loops {
		if l.AioContext == ctx {
			return l
		}
	}
	return nil
}

// preempt lets loops overtake a controller that is in the middle of a look at the counts. It does so only when no other one runs or waits
// inside of blockcore, which might run at the same time; and once for each step of the scheduler, since how often a controller looks
// after one is not always the same. Where others run it does not even wait for the step that is under way: a controller looks under the
// graph's lock, which what the step calls may take.
func (w *world) preempt() {
	if !w.alone() {
		return
	}
	w.stepping.Lock()
	defer w.stepping.Unlock()
	if !w.alone() || w.preempted == w.steps {
		return
	}
	w.preempted = w.steps
	w.count("overtaken")
	rng := rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.steps)))
	for range rng.IntN(60) {
		loops := w.runnable()
		if len(loops) == 0 || !w.alone() {
			return
		}
		w.stepLocked(loops[rng.IntN(len(loops))])
	}
}

// alone reports that one controller was not parked when the scheduler last decided, and none has come since; nor does a loop do its work.
func (w *world) alone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.solo && w.brief == 0 && w.failure == ""
}

// fail notes the first thing that is wrong. Safe from anywhere.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.trace = append(w.trace, "FAILURE: "+w.failure)
	}
}

func (w *world) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure != ""
}

func (w *world) log(format string, args ...any) {
	if !w.cfg.Trace {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	on := ""
	if w.running != nil {
		on = w.running.Name() + " "
	}
	w.trace = append(w.trace, fmt.Sprintf("%v #%d %s", w.now(), w.ticks, on)+fmt.Sprintf(format, args...))
}

func (w *world) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

// close ends the loops, which have nothing left to do.
func (w *world) close() {
	for _, l := range w.loops {
		closed := make(chan struct{})
		go func() { l.Close(); close(closed) }()
		synctest.Wait()
		for range 1000 {
			if !l.Step() {
				break
			}
		}
		select {
		case <-closed:
		default:
			synctest.Wait()
		}
		select {
		case <-closed:
		default:
			w.fail("%s does not end", l.Name())
		}
	}
	if err := w.pool.Close(); err != nil {
		w.fail("a buffer was leaked: %v", err)
	}
}
