package nfs

import (
	"context"
	"fmt"

	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
	"nbd-dataplane/internal/simkit"
)

// simConfig says which run it is, and how long.
type simConfig struct {
	seed     uint64
	requests int
	troubles int // at most
}

// simWorld is one simulation of the driver against a server. What stands under no heading belongs to whoever runs, which is one goroutine at a time.
type simWorld struct {
	*simkit.Stage

	// Immutable.
	cfg     simConfig
	rng     *rand.Rand
	graph   *blockcore.Graph
	server  *nfstest.Server
	scratch []byte
	slow    time.Duration // the longest that a call, or its reply, usually takes
	between time.Duration // the longest between two troubles
	faulty  int           // of a thousand calls, as long as there are bads
	pullMax int

	file     *File
	node     *blockcore.Node
	root     *blockcore.Root
	model    simModel
	links    []*simLink
	touched  bool // a socket, since the last poll
	clients  int  // that have not ended
	asked    int  // requests
	closing  bool
	drained  bool // a section has settled and not ended
	doubtful bool // a resize has failed
	cutLate  int  // from this cell on something may be cut off later; 0 = nothing
	tags     uint64
	serials  int
	all      []*simClient
	cancels  bool // requests are cancelled
	hot      bool // they are small, and close to one another
	errors   []simError
	sick     bool          // as OnHealth was told
	wakeAt   time.Duration // when the network does something by itself
	simLocking
	simReopening

	passOver int  // calls that are to be forgotten
	putOff   bool // there is no time for any call
	bads     int  // calls that may still meet something
	troubles int
	next     time.Duration // trouble
	restarts int           // verifiers that the server has had
	timeout  time.Duration // the shortest that there was; 0 = none
	down     time.Duration // until when the server does not run,
	refusing time.Duration // takes no connections,
	silent   time.Duration // does nothing,
	full     time.Duration // has no room,
	busy     time.Duration // and has no time
}

// simStuckMax is how long nothing may come to its end: longer than all troubles together, with the pauses of the driver behind them.
const simStuckMax = 3 * time.Hour

// simFile is the file's path.
const simFile = "/export/disk"

func newSimWorld(cfg simConfig, traced bool) *simWorld {
	return &simWorld{Stage: simkit.NewStage(traced), cfg: cfg, rng: rand.New(rand.NewPCG(cfg.seed, 0x6e6673)), scratch: make([]byte, 64<<10)}
}

// runSimulation runs one seed. It is called in a bubble of testing/synctest.
func runSimulation(t *testing.T, cfg simConfig, traced bool) simkit.Result {
	w := newSimWorld(cfg, traced)
	w.draw()
	w.build(t)
	w.launch("main", (*simThread).main)
	w.Play(w.choose)
	if !w.Failed() {
		w.Close()
	}
	for _, l := range slices.Clone(w.links) {
		unix.Close(l.fd)
	}
	return w.Result()
}

func oneOf[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// draw decides what kind of run it is.
func (w *simWorld) draw() {
	w.slow = oneOf(w.rng, 0, time.Millisecond, 100*time.Millisecond, 10*time.Second)
	w.between = oneOf(w.rng, 10*time.Millisecond, time.Second, time.Minute)
	w.faulty = oneOf(w.rng, 0, 10, 50, 200)
	w.pullMax = oneOf(w.rng, 100, 5000, 1<<16)
	w.bads = 3 * w.cfg.troubles
	w.hot = w.rng.IntN(3) == 0
	w.cancels = w.rng.IntN(3) == 0
	w.reopens = w.rng.IntN(2) == 0
	w.troubles = w.rng.IntN(w.cfg.troubles + 1)
	w.next = time.Duration(w.rng.Int64N(int64(w.between)))
}

// build makes the server and opens its file.
func (w *simWorld) build(t *testing.T) {
	least := 8
	if w.rng.IntN(20) == 0 {
		least = 1 // more calls than there is room for
	}
	most := func() int { return simkit.CellBytes * oneOf(w.rng, least+w.rng.IntN(16), 8, 64, 128, 1024) }
	readMax, writeMax := most(), most()
	w.server = nfstest.New(t, nfstest.Options{
		Seed: w.cfg.seed, AlwaysSync: w.rng.IntN(10) == 0, NoAttributes: w.rng.IntN(2) == 0, Locks: nfstest.LinuxLocks, ReadBytesMax: readMax, WriteBytesMax: writeMax,
	})
	cells := 64 * (1 + w.rng.IntN(24))
	if w.rng.IntN(3) == 0 {
		cells -= w.rng.IntN(63)
	}
	w.server.Put(simFile, nfstest.File{SizeBytes: int64(cells) * simkit.CellBytes})
	o := &Options{Host: "server", Path: simFile, Connections: 1 + w.rng.IntN(3), OnHealth: w.health}
	if w.rng.IntN(3) == 0 {
		o.Timeout = w.someTimeout()
	}
	o.Writethrough = w.rng.IntN(20) == 0
	w.loopsAndGraph()
	if w.rng.IntN(3) == 0 {
		o.Locking, o.LockNotes, w.opening = imagelock.On, t.TempDir(), o
		w.visitor.visits, w.reopens = oneOf(w.rng, 0, 3, 30), w.rng.IntN(4) > 0
		return
	}
	w.open(o, uint64(cells)*simkit.CellBytes, wire.Sizes{ReadMax: uint32(readMax), WriteMax: uint32(writeMax), FileMax: 1 << 40})
}

// opened gets to know the file, which is open.
func (w *simWorld) opened() {
	if w.rng.IntN(2) == 0 {
		w.file.heldMax = pageBytes * int64(4+w.rng.IntN(28))
	}
	w.model.grow(int(w.file.Size()) / simkit.CellBytes)
}

// loopsAndGraph makes them.
func (w *simWorld) loopsAndGraph() {
	w.graph = blockcore.NewGraph()
	w.AddLoops(2)
}

// open makes the file, which is connected.
func (w *simWorld) open(o *Options, sizeBytes uint64, sizes wire.Sizes) {
	d := newDialer(o)
	d.simulated = w.way
	found := wire.Found{Handle: wire.Handle(w.server.Handle(simFile)), Attributes: wire.Attributes{SizeBytes: sizeBytes}}
	w.file = newFile(o, d, found, sizes, w.newLink())
}

// simTimeouts are those of calls.
var simTimeouts = []time.Duration{100 * time.Millisecond, time.Second, 20 * time.Second, 3 * time.Minute}

// someTimeout is one that calls have from now on, or have had before.
func (w *simWorld) someTimeout() time.Duration {
	d := oneOf(w.rng, simTimeouts...)
	if w.timeout == 0 || d < w.timeout {
		w.timeout = d
	}
	w.longest = max(w.longest, d)
	return d
}

// someTime is how long something lasts: minutes now and then.
func (w *simWorld) someTime() time.Duration {
	return time.Duration(w.rng.Int64N(int64(oneOf(w.rng, 1, time.Millisecond, time.Second, 15*time.Second, 10*time.Minute))))
}

// soon is when a call is executed, or a reply sent.
func (w *simWorld) soon() time.Duration {
	if w.slow == 0 || w.rng.IntN(2) == 0 {
		return w.Now()
	}
	return w.Now() + time.Duration(w.rng.Int64N(int64(w.slow)))
}

// health is told of the server's.
func (w *simWorld) health(h Health) {
	w.Log("health: %v", h)
	if h.Refuses {
		w.sick = true
		return
	}
	if h.OK != w.sick {
		w.Fail("the server's health is told twice: %v", h)
	}
	w.sick = !h.OK
}

// choose has one loop, one connection, one goroutine or time go on.
func (w *simWorld) choose() {
	w.wakeAt = 1<<62 - 1
	var list []func()
	for _, l := range w.Loops {
		if l.Runnable() {
			list = append(list, func() { w.steps(l) }, func() { w.steps(l) }, func() { w.steps(l) })
		}
	}
	w.lockEvents()
	list = w.network(list)
	for _, t := range w.Eligible() {
		list = append(list, func() { w.Grant(t) })
	}
	if w.troubles > 0 && w.next <= w.Now() {
		list = append(list, w.trouble)
	} else if w.troubles > 0 {
		w.wake(w.next)
	}
	switch {
	case len(list) == 0:
		w.pass()
	case w.rng.IntN(100) == 0:
		w.sleep(time.Duration(w.rng.IntN(1000)) * time.Microsecond)
	default:
		list[w.rng.IntN(len(list))]()
	}
}

// network adds what the connections may do.
func (w *simWorld) network(list []func()) []func() {
	if !w.up() {
		w.wake(w.down)
	}
	w.poll()
	for _, l := range w.links {
		list = l.actions(list)
	}
	return list
}

// poll asks the sockets what they are ready for, unless nobody has touched one since.
func (w *simWorld) poll() {
	if !w.touched {
		return
	}
	w.touched = false
	polls := make([]unix.PollFd, len(w.links))
	for i, l := range w.links {
		polls[i] = unix.PollFd{Fd: int32(l.fd), Events: unix.POLLIN | unix.POLLOUT}
	}
	for {
		if _, err := unix.Poll(polls, 0); err != unix.EINTR {
			break
		}
	}
	for i, l := range w.links {
		l.ready = polls[i].Revents
	}
}

// wake has time stop at a moment.
func (w *simWorld) wake(at time.Duration) {
	if at > w.Now() {
		w.wakeAt = min(w.wakeAt, at)
	}
}

// pass lets time pass until something may happen.
func (w *simWorld) pass() {
	most := 10 * time.Second
	if w.opening != nil {
		most /= 20 // goroutines of the driver have timers of their own, and give loops something to do
	}
	w.sleep(w.Idle(min(w.wakeAt-w.Now(), most)))
	w.MustMove(simStuckMax, w.describe)
}

// describe tells what is under way.
func (w *simWorld) describe() string {
	f := w.file
	if f == nil {
		return "no file"
	}
	s := fmt.Sprintf("%d clients, %d requests in flight; committing %t, held %d, reserved %d, stale %d, watched %t", w.clients, w.root.InFlight(), f.committing, f.held.bytes(), f.reserved, f.held.stale, f.watch != nil)
	for i, c := range f.conns {
		s += fmt.Sprintf("; connection %d: fd %d, %d calls, dials %t, waits %t", i, c.fd, c.outstanding, c.attempt != nil, c.retry != nil)
	}
	for _, k := range f.calls.all {
		if k.state != callFree {
			s += fmt.Sprintf("; %v %08x state %d for %v, may take %v", k.proc, k.xid, k.state, f.ctx.Now()-k.since, max(k.deadline-k.since, 0))
		}
	}
	return s
}

// steps has a loop do some things.
func (w *simWorld) steps(l *blockcore.Stepped) {
	for range 1 + w.rng.IntN(4) {
		w.step(l)
		synctest.Wait() // a goroutine that waited for it may give the loop more to do
	}
}

// step has a loop do one thing.
func (w *simWorld) step(l *blockcore.Stepped) {
	w.touched = true
	w.Step(l)
}

// sleep lets time pass.
func (w *simWorld) sleep(d time.Duration) {
	<-time.After(d)
}

func (w *simWorld) serial() int {
	w.serials++
	return w.serials
}

// simThread is a goroutine that parks until the scheduler chooses it: the control plane, or an attempt to connect.
type simThread struct {
	*simkit.Thread
	w *simWorld
}

func (w *simWorld) newThread(name string) *simThread {
	return &simThread{Thread: w.NewThread(name), w: w}
}

func (w *simWorld) launch(name string, body func(*simThread)) {
	t := w.newThread(name)
	go func() {
		defer w.Rescue(name)
		t.pause(0)
		body(t)
	}()
}

// way is how an attempt to connect reaches the server: on the loop it is made, on a goroutine of its own it parks, and is chosen when the network is done with it.
func (w *simWorld) way() func(context.Context) (int, error) {
	t := w.NewThread(fmt.Sprintf("dial%04d", w.serial()))
	takes := w.soon() - w.Now()
	return func(ctx context.Context) (int, error) {
		if !t.Park(ctx, takes) {
			return -1, ctx.Err()
		}
		if !w.up() || w.Now() < w.refusing {
			w.Log("%s: refused", t.Name)
			return -1, syscall.ECONNREFUSED
		}
		w.Log("%s: connected", t.Name)
		return w.newLink(), nil
	}
}
