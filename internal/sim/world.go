package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/simkit"
)

// Config says which run it is, and how long.
type Config struct {
	Seed     uint64
	Requests int             // about as many before the clients slow down
	Changes  int             // of each goroutine of the control plane
	Without  map[string]bool // kinds of changes that are left out
}

// world is one simulation. What stands under no heading belongs to whoever runs, which is one goroutine at a time.
type world struct {
	*simkit.Stage

	// Immutable.
	cfg    Config
	rng    *rand.Rand // of the scheduler
	graph  *blockcore.Graph
	groups []*blockcore.ThrottleGroup
	jobs   *blockcore.Jobs

	layers   []driver // in the graph
	owners   []*owner
	sections []*section
	volumes  []*volume
	locked   map[*volume]bool       // contents are being changed by somebody who drains
	wakers   map[string]*controller // who makes a change by Graph.Change, by the name of its section
	tags     uint64
	serial   int // of names
	requests int
	workers  int    // controllers that change things
	jobbing  int    // jobs
	weights  [3]int // of a loop, a controller, time

	stepping  sync.Mutex // held while a loop does something
	steps     int
	preempted int // the step after which a controller was last preempted
	updating  int // Updates under way
	attended  int // nodes that they remove or resize
	voyages   voyages
	updated   int64 // tick at which the last began or ended
	lastCalm  int64 // tick at which all loops were idle

	zeroing time.Duration // until when clients write nothing but a few zeroes

	// Guarded by mu.
	mu       sync.Mutex
	unparked int  // controllers that are neither parked nor ended
	solo     bool // there was one of them when the scheduler last decided
	brief    int  // what is under way that loops may do, and that takes the graph's lock
}

// stuckMax is how much time may pass without any request or change coming to its end. Drains take less (drainMax).
const stuckMax = 3 * drainMax

// Run runs one simulation; traced says whether it takes down what happens. It is called in a bubble of testing/synctest.
func Run(cfg Config, traced bool) simkit.Result {
	w := &world{Stage: simkit.NewStage(traced), cfg: cfg, locked: map[*volume]bool{}, wakers: map[string]*controller{}}
	w.rng = w.stream("scheduler")
	for i := range w.weights[:2] {
		w.weights[i] = []int{1, 3, 10}[w.rng.IntN(3)]
	}
	w.weights[2] = w.rng.IntN(2)
	w.graph = blockcore.NewGraphWith(blockcore.GraphOptions{OnWake: w.wake})
	w.jobs = blockcore.NewJobs(w.graph)
	w.AddLoops(2 + w.rng.IntN(2))
	for i := range 2 {
		w.groups = append(w.groups, blockcore.NewThrottleGroup(fmt.Sprintf("group%d", i)))
	}
	w.launch("main", (*controller).main)
	w.Play(w.choose)
	if !w.Failed() {
		w.Close()
	}
	return w.Result()
}

// stream returns random numbers of its own for a part of the simulation: what one part draws does not change what another does.
func (w *world) stream(name string) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(w.cfg.Seed, h.Sum64()))
}

// choose has one loop, one controller or time go on.
func (w *world) choose() {
	loops := w.runnable()
	if len(loops) == 0 {
		w.lastCalm = w.Tick()
	}
	ready := w.Eligible()
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
	for _, l := range w.Loops {
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
	w.Step(l)
}

// grant has a controller go on.
func (w *world) grant(t *simkit.Thread) {
	w.mu.Lock()
	w.unparked++
	w.solo = w.unparked == 1
	w.mu.Unlock()
	w.Progress()
	w.Grant(t)
}

// pass lets time pass until something may happen.
func (w *world) pass() {
	w.sleep(w.Idle(10 * time.Millisecond))
	w.MustMove(stuckMax, w.describe)
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
		lines = append(lines, fmt.Sprintf("root %s: %d in flight, quiesced %t, %d lines", o.name, o.root.InFlight(), o.still, o.live))
	}
	for _, d := range w.layers {
		if l := d.common(); l.node != nil {
			lines = append(lines, fmt.Sprintf("node %s: %d in flight, quiesced %t", l.name, l.node.InFlight(), l.still))
		}
	}
	return strings.Join(lines, "\n")
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
	for _, l := range w.Loops {
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
	w.Count("overtaken")
	rng := rand.New(rand.NewPCG(w.cfg.Seed, uint64(w.steps)))
	for range rng.IntN(60) {
		loops := w.runnable()
		if len(loops) == 0 || !w.alone() {
			return
		}
		w.Step(loops[rng.IntN(len(loops))])
	}
}

// alone reports that one controller was not parked when the scheduler last decided, and none has come since; nor does a loop do its work.
func (w *world) alone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.solo && w.brief == 0 && !w.Failed()
}
