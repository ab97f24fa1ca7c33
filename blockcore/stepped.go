package blockcore

import (
	"iter"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/membuf"
)

// Stepped is an AioContext whose loop has no thread: it goes on when it is told to, one thing at a time, and between two
// things others may look at what they could see of a loop on a thread. It is for simulations, in which one goroutine decides what happens
// next and the same decisions give the same run. It reads and writes no files: drivers on it live in memory, or at the other end of a socket,
// which is asked whether it is ready and never waited for.
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
		Name: name, Buffers: buffers, PollMax: -1, clock: wallClock{},
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

// wallClock is for a testing/synctest bubble, whose time begins long before that of the process: drivers take it that the time of a loop is not negative.
type wallClock struct{}

func (wallClock) now() time.Duration { return time.Duration(time.Now().UnixNano()) }

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
	return ok && at <= s.clock.now() || s.socketReady()
}

// socketReady reports whether somebody waits for a socket that is ready.
func (s *Stepped) socketReady() bool {
	e := s.engine.(*steppedEngine)
	fds := e.armedSockets()
	for _, w := range s.hot {
		if w.isHot {
			fds = append(fds, unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN})
		}
	}
	return pollNow(fds)
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

// steppedEngine refuses all I/O on files, and asks sockets.
type steppedEngine struct {
	// Owned by the context.
	ctx     *AioContext
	pending []*operation
	armed   []*Watcher // in either direction, in the order of their coming
}

func (e *steppedEngine) name() string             { return "stepped" }
func (e *steppedEngine) start() error             { return nil }
func (e *steppedEngine) queue(o *operation)       { e.pending = append(e.pending, o) }
func (e *steppedEngine) queued() int              { return 0 }
func (e *steppedEngine) submit()                  {}
func (e *steppedEngine) pollReady() bool          { return len(e.pending) > 0 }
func (e *steppedEngine) wait(time.Duration, bool) {}
func (e *steppedEngine) wake()                    {}
func (e *steppedEngine) close()                   {}

func (e *steppedEngine) arm(w *Watcher, d direction) {
	w.armed[d] = true
	if !slices.Contains(e.armed, w) {
		e.armed = append(e.armed, w)
	}
}

func (e *steppedEngine) disarm(w *Watcher) {
	e.armed = slices.DeleteFunc(e.armed, func(other *Watcher) bool { return other == w })
	w.armed = [2]bool{}
	w.release()
}

// armedSockets is what poll(2) is to be asked.
func (e *steppedEngine) armedSockets() []unix.PollFd {
	var fds []unix.PollFd
	for _, w := range e.armed {
		fds = append(fds, w.pollFd())
	}
	return fds
}

func (w *Watcher) pollFd() unix.PollFd {
	fd := unix.PollFd{Fd: int32(w.fd)}
	if w.armed[directionIn] {
		fd.Events |= unix.POLLIN
	}
	if w.armed[directionOut] {
		fd.Events |= unix.POLLOUT
	}
	return fd
}

// pollNow asks sockets and does not wait.
func pollNow(fds []unix.PollFd) bool {
	if len(fds) == 0 {
		return false
	}
	for {
		if n, err := unix.Poll(fds, 0); err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

func (e *steppedEngine) reap() bool {
	done := e.pending
	e.pending = nil
	for _, o := range done {
		o.result = -int32(syscall.ENOSYS)
		e.ctx.resume(o.task)
	}
	return e.fire() || len(done) > 0
}

// fire calls the handlers of sockets that are ready.
func (e *steppedEngine) fire() bool {
	fds := e.armedSockets()
	if !pollNow(fds) {
		return false
	}
	for i, w := range slices.Clone(e.armed) {
		for d, events := range [2]int16{unix.POLLIN, unix.POLLOUT} {
			if w.armed[d] && fds[i].Revents&(events|unix.POLLERR|unix.POLLHUP) != 0 {
				w.fire(direction(d))
			}
		}
	}
	e.armed = slices.DeleteFunc(e.armed, func(w *Watcher) bool { return w.armed == [2]bool{} })
	return true
}
