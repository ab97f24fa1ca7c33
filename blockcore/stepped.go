package blockcore

import (
	"iter"
	"syscall"
	"time"

	"nbd-dataplane/internal/membuf"
)

// Stepped is an AioContext whose loop has no thread: it goes on when it is told to, one thing at a time, and between two
// things others may look at what they could see of a loop on a thread. It is for simulations, in which one goroutine decides what happens
// next and the same decisions give the same run. It does no I/O of its own: drivers on it live in memory.
//
// What it runs is the turn of every other context. It does not rest: there is no polling and no sleep.
type Stepped struct {
	*AioContext

	// Owned by the context.
	next  func() (struct{}, bool)
	yield func(struct{}) bool
	idle  bool // between two turns of which the first found nothing to do
}

// NewStepped makes a loop that has not begun. Buffers may be nil, as in ContextOptions.
func NewStepped(name string, buffers *membuf.Pool) *Stepped {
	c, err := newContext(ContextOptions{
		Name: name, Buffers: buffers, PollMax: -1,
		newEngine: func(c *AioContext) (engine, error) { return &steppedEngine{ctx: c}, nil },
	})
	if err != nil {
		panic(err) // the engine above never fails
	}
	s := &Stepped{AioContext: c}
	c.between = func() { s.yield(struct{}{}) }
	s.next, _ = iter.Pull(s.loop)
	return s
}

// Step does one thing: a posted function, a timer, a Task up to its suspension. It reports false when the loop has ended. Not on a
// loop, and by one goroutine at a time.
func (s *Stepped) Step() bool {
	_, more := s.next()
	return more
}

// Runnable reports whether Step would find something to do now.
func (s *Stepped) Runnable() bool {
	if !s.idle || s.hasPosted.Load() || len(s.ready) > 0 || s.engine.pollReady() {
		return true
	}
	at, ok := s.timers.next()
	return ok && at <= s.clock.now()
}

// Timer returns in how long the loop has something to do by itself, and false when it never has. It belongs to whoever steps.
func (s *Stepped) Timer() (time.Duration, bool) {
	at, ok := s.timers.next()
	return max(at-s.clock.now(), 0), ok
}

func (s *Stepped) loop(yield func(struct{}) bool) {
	defer close(s.stopped)
	defer s.workers.close()
	s.yield = yield
	for !s.finished() {
		if !s.turn() {
			s.idle = true
			yield(struct{}{})
			s.idle = false
		}
	}
	s.release()
}

// steppedEngine refuses all I/O.
type steppedEngine struct {
	// Owned by the context.
	ctx     *AioContext
	pending []*operation
}

func (e *steppedEngine) name() string             { return "stepped" }
func (e *steppedEngine) start() error             { return nil }
func (e *steppedEngine) queue(o *operation)       { e.pending = append(e.pending, o) }
func (e *steppedEngine) queued() int              { return 0 }
func (e *steppedEngine) submit()                  {}
func (e *steppedEngine) pollReady() bool          { return len(e.pending) > 0 }
func (e *steppedEngine) wait(time.Duration, bool) {}
func (e *steppedEngine) wake()                    {}
func (e *steppedEngine) arm(*Watcher, direction)  {}
func (e *steppedEngine) disarm(w *Watcher)        { w.release() }
func (e *steppedEngine) close()                   {}

func (e *steppedEngine) reap() bool {
	done := e.pending
	e.pending = nil
	for _, o := range done {
		o.result = -int32(syscall.ENOSYS)
		e.ctx.resume(o.task)
	}
	return len(done) > 0
}
