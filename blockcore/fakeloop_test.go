package blockcore

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/membuf"
)

// fakeLoop is a real loop on an engine and a clock that the test drives. Whenever the loop would sleep it
// hands over to the test, which owns everything until it calls resume: so a test reads and
// changes what is owned by the context, and each run gives the same transcript.
type fakeLoop struct {
	*AioContext
	t      *testing.T
	engine *fakeEngine
	time   *fakeClock
	lines  []string
}

// fakeClock stands still but where the test or the engine moves it.
type fakeClock struct{ at atomic.Int64 }

func (f *fakeClock) now() time.Duration           { return time.Duration(f.at.Load()) }
func (f *fakeClock) advance(d time.Duration)      { f.at.Add(int64(d)) }
func newFakeClock(begin time.Duration) *fakeClock { f := &fakeClock{}; f.advance(begin); return f }
func (l *fakeLoop) note(format string, args ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// newFakeLoop starts a loop and returns when it sleeps for the first time.
func newFakeLoop(t *testing.T, o ContextOptions) *fakeLoop {
	t.Helper()
	l := &fakeLoop{t: t, time: newFakeClock(time.Hour)}
	pool := membuf.NewPool(0)
	o.Name, o.Buffers, o.clock = t.Name(), pool, l.time
	o.newEngine = func(c *AioContext) (engine, error) {
		l.engine = &fakeEngine{
			loop: l, ctx: c,
			asked: make(chan struct{}), answer: make(chan struct{}), ending: make(chan struct{}),
		}
		return l.engine, nil
	}
	c, err := NewAioContext(o)
	require.NoError(t, err)
	l.AioContext = c
	<-l.engine.asked
	t.Cleanup(func() {
		close(l.engine.ending)
		c.Close()
		require.NoError(t, pool.Close(), "a buffer was leaked")
	})
	return l
}

// resume ends the sleep after d and returns when the loop sleeps again.
func (l *fakeLoop) resume(d time.Duration) {
	l.time.advance(d)
	l.engine.answer <- struct{}{}
	<-l.engine.asked
}

// during ends the sleep as resume(0) does, but runs setup on the loop's own goroutine first.
func (l *fakeLoop) during(setup func()) {
	l.engine.first = setup
	l.resume(0)
}

// expect compares the transcript with what is wanted, one line each, and forgets it.
func (l *fakeLoop) expect(golden string) {
	l.t.Helper()
	var want []string
	for _, line := range strings.Split(strings.TrimSpace(golden), "\n") {
		want = append(want, strings.TrimSpace(line))
	}
	require.Equal(l.t, strings.Join(want, "\n"), strings.Join(l.lines, "\n"))
	l.lines = nil
}

// fakeEngine notes what the loop asks of it. Owned by the context, and by the test while the loop sleeps.
type fakeEngine struct {
	loop *fakeLoop
	ctx  *AioContext

	asked, answer chan struct{} // a wait begins; the test ends it
	ending        chan struct{} // closed at the end: waits return at once

	first     func()                           // runs in the wait that ends
	onWait    func()                           // runs in each wait before it begins
	onArm     func()                           // runs in arm
	looks     func(look int) bool              // what pollReady says; nil = false
	look      int                              // how often pollReady was asked since the last wait
	results   func(o *operation) (int32, bool) // completes an operation; nil = 0 at once
	pending   []*operation
	submitted []*operation
	armed     []firing
	fired     []firing // to be delivered by the next reap
	wakes     atomic.Int64
}

// lookTime is how much virtual time it takes to look around once.
const lookTime = time.Microsecond

func (e *fakeEngine) name() string       { return "fake" }
func (e *fakeEngine) start() error       { return nil }
func (e *fakeEngine) close()             {}
func (e *fakeEngine) wake()              { e.wakes.Add(1) }
func (e *fakeEngine) queue(o *operation) { e.pending = append(e.pending, o) }
func (e *fakeEngine) queued() int        { return len(e.pending) }

func (e *fakeEngine) submit() {
	if len(e.pending) == 0 {
		return
	}
	e.loop.note("submit %d", len(e.pending))
	e.submitted = append(e.submitted, e.pending...)
	e.pending = nil
}

func (e *fakeEngine) reap() bool {
	fired, submitted := e.fired, e.submitted
	e.fired, e.submitted = nil, nil
	for _, f := range fired {
		if f.w.armed[f.d] {
			f.w.fire(f.d)
		}
	}
	worked := len(fired) > 0
	for _, o := range submitted {
		result, done := int32(0), true
		if e.results != nil {
			result, done = e.results(o)
		}
		if !done {
			e.submitted = append(e.submitted, o)
			continue
		}
		worked = true
		o.result = result
		e.ctx.resume(o.task)
	}
	return worked
}

func (e *fakeEngine) pollReady() bool {
	e.look++
	e.loop.time.advance(lookTime)
	return len(e.fired) > 0 || e.looks != nil && e.looks(e.look)
}

func (e *fakeEngine) wait(timeout time.Duration, patient bool) {
	e.submit()
	how := "wait"
	if patient {
		how = "wait patiently"
	}
	if timeout < 0 {
		e.loop.note("%s", how)
	} else {
		e.loop.note("%s %s", how, strings.Replace(timeout.String(), "\u00b5", "u", 1))
	}
	if e.onWait != nil {
		e.onWait()
	}
	select {
	case e.asked <- struct{}{}:
		select {
		case <-e.answer:
		case <-e.ending:
		}
	case <-e.ending:
	}
	e.look = 0
	if first := e.first; first != nil {
		e.first = nil
		first()
	}
}

func (e *fakeEngine) arm(w *Watcher, d direction) {
	e.loop.note("arm %v", [2]string{"in", "out"}[d])
	w.armed[d] = true
	e.armed = append(e.armed, firing{w, d})
	if e.onArm != nil {
		e.onArm()
	}
}

func (e *fakeEngine) disarm(w *Watcher) {
	w.armed = [2]bool{}
	w.release()
}

// handler makes a Handler of functions; nil ones find nothing.
type handler struct {
	in  func() bool
	out func()
}

func (h *handler) ReadyIn() bool { return h.in != nil && h.in() }

func (h *handler) ReadyOut() {
	if h.out != nil {
		h.out()
	}
}

// turnEnder makes a TurnEnder of a function.
type turnEnder func()

func (f turnEnder) TurnEnd() { f() }
