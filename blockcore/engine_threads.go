package blockcore

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// threadsEngine is epoll for readiness and the context's workers for I/O: what works on every kernel
// and in every container.
type threadsEngine struct {
	// Immutable.
	ctx     *AioContext
	epollFD int
	wakeFD  int // eventfd

	// Owned by the context.
	pending []*operation
	fired   []firing // armed for something that had happened before
	events  [64]unix.EpollEvent
	ready   int           // events that epoll told and reap has not delivered
	unasked int           // reaps since epoll was asked
	timeout unix.Timespec // of epollWait; here because a stack, called through a variable, may move
	reaped  []*operation  // the batch of done being delivered

	// Guarded by mu.
	mu   sync.Mutex
	done []*operation

	// Safe from anywhere.
	hasDone atomic.Bool
}

type firing struct {
	w *Watcher
	d direction
}

// wakeIndex stands for the eventfd among the numbers of watchers.
const wakeIndex = ^uint32(0)

func newThreadsEngine(c *AioContext) (engine, error) {
	epollFD, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wakeFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epollFD)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1}
	if err := unix.EpollCtl(epollFD, unix.EPOLL_CTL_ADD, wakeFD, &ev); err != nil {
		unix.Close(epollFD)
		unix.Close(wakeFD)
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return &threadsEngine{ctx: c, epollFD: epollFD, wakeFD: wakeFD}, nil
}

func (e *threadsEngine) name() string { return "threads" }

func (e *threadsEngine) start() error { return nil }

func (e *threadsEngine) queue(o *operation) { e.pending = append(e.pending, o) }

func (e *threadsEngine) queued() int { return len(e.pending) }

func (e *threadsEngine) submit() {
	for i, o := range e.pending {
		e.pending[i] = nil
		e.ctx.workers.run(func() { e.execute(o) })
	}
	e.pending = e.pending[:0]
}

// execute does o on a worker and hands it back.
func (e *threadsEngine) execute(o *operation) {
	o.result = o.execute()
	e.mu.Lock()
	e.done = append(e.done, o)
	e.hasDone.Store(true)
	e.mu.Unlock()
	e.ctx.wake()
}

// execute does the system call of o and returns its result or its negative errno.
func (o *operation) execute() int32 {
	var n int
	var err error
	switch o.kind {
	case opRead:
		n, err = unix.Preadv2(o.fd, [][]byte{o.buffer}, o.offset, int(o.flags))
	case opWrite:
		n, err = unix.Pwritev2(o.fd, [][]byte{o.buffer}, o.offset, int(o.flags))
	case opFdatasync:
		err = unix.Fdatasync(o.fd)
	case opFallocate:
		err = unix.Fallocate(o.fd, o.flags, o.offset, o.length)
	}
	if err == nil {
		return int32(n)
	}
	if errno, ok := err.(syscall.Errno); ok {
		return -int32(errno)
	}
	return -int32(unix.EIO)
}

// unaskedMax is how often a loop that has no time to wait reaps before it asks epoll all the same: a busy
// client must not make the others wait.
const unaskedMax = 16

func (e *threadsEngine) reap() bool {
	if e.unasked++; e.unasked > unaskedMax && e.ready == 0 {
		e.ready = e.epollWait(0, false)
	}
	worked := e.reapFired()
	if e.deliverEvents() {
		worked = true
	}
	if e.reapDone() {
		worked = true
	}
	return worked
}

func (e *threadsEngine) reapFired() bool {
	n := len(e.fired) // what is armed meanwhile waits for the next reap
	for i := range n {
		f := e.fired[i]
		if f.w.armed[f.d] {
			f.w.fire(f.d)
		}
	}
	e.fired = slices.Delete(e.fired, 0, n)
	return n > 0
}

func (e *threadsEngine) deliverEvents() bool {
	n := e.ready
	for i := range e.events[:n] {
		ev := &e.events[i]
		if ev.Fd == -1 {
			continue
		}
		w := e.ctx.watchers.at(uint32(ev.Fd))
		if w == nil {
			continue
		}
		const out, in = unix.EPOLLOUT, unix.EPOLLIN | unix.EPOLLRDHUP
		const both = unix.EPOLLHUP | unix.EPOLLERR
		if ev.Events&(in|both) != 0 {
			e.happened(w, directionIn)
		}
		if ev.Fd != -1 && ev.Events&(out|both) != 0 { // -1: the handler has closed it
			e.happened(w, directionOut)
		}
	}
	e.ready = 0
	return n > 0
}

// happened delivers an edge, or keeps it for when somebody asks.
func (e *threadsEngine) happened(w *Watcher, d direction) {
	if w.armed[d] {
		w.fire(d)
		return
	}
	w.early[d] = true
}

func (e *threadsEngine) reapDone() bool {
	if !e.hasDone.Load() {
		return false
	}
	e.mu.Lock()
	e.reaped, e.done = e.done, e.reaped[:0]
	e.hasDone.Store(false)
	e.mu.Unlock()
	for i, o := range e.reaped {
		e.reaped[i] = nil
		e.ctx.resume(o.task)
	}
	return true
}

func (e *threadsEngine) pollReady() bool {
	return e.hasDone.Load() || len(e.fired) > 0 || e.ready > 0
}

func (e *threadsEngine) wait(timeout time.Duration, patient bool) {
	e.submit()
	if e.pollReady() {
		timeout = 0
	}
	e.ready = e.epollWait(timeout, patient)
}

// epollWait is epoll_pwait2; see docs/decisions/0002-raw-waits.md for the two ways to call it.
func (e *threadsEngine) epollWait(timeout time.Duration, patient bool) int {
	e.unasked = 0
	var ts unsafe.Pointer
	if timeout >= 0 {
		e.timeout = unix.NsecToTimespec(int64(timeout))
		ts = unsafe.Pointer(&e.timeout)
	}
	call := unix.RawSyscall6
	if patient {
		call = unix.Syscall6
	}
	n, _, errno := call(unix.SYS_EPOLL_PWAIT2, uintptr(e.epollFD),
		uintptr(unsafe.Pointer(&e.events[0])), uintptr(len(e.events)), uintptr(ts), 0, 0)
	if errno == unix.ENOSYS {
		return e.epollWaitMillis(timeout)
	}
	if errno != 0 {
		return 0 // EINTR: a signal of the Go runtime
	}
	return int(n)
}

// epollWaitMillis is for kernels before 5.11.
func (e *threadsEngine) epollWaitMillis(timeout time.Duration) int {
	millis := -1
	if timeout >= 0 {
		millis = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, err := unix.EpollWait(e.epollFD, e.events[:], millis)
	if err != nil {
		return 0
	}
	return n
}

func (e *threadsEngine) wake() { writeEventfd(e.wakeFD) }

// writeEventfd adds one to an eventfd. Its counter does not overflow within the life of a process.
func writeEventfd(fd int) {
	one := [8]byte{1}
	for {
		if _, err := unix.Write(fd, one[:]); err != unix.EINTR {
			return
		}
	}
}

func (e *threadsEngine) arm(w *Watcher, d direction) {
	w.armed[d] = true
	switch {
	case !w.known:
		e.introduce(w)
	case d == directionOut && !w.early[d]:
		// There may be room already, of which epoll has told before; asking again has it look.
		ev := interest(w)
		_ = unix.EpollCtl(e.epollFD, unix.EPOLL_CTL_MOD, w.fd, &ev)
	}
	if w.early[d] {
		w.early[d] = false
		e.fired = append(e.fired, firing{w, d})
	}
}

// interest is what epoll is told of w: both directions, for good. Edges that nobody waits for are kept in early.
func interest(w *Watcher) unix.EpollEvent {
	return unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     int32(w.index),
	}
}

// introduce tells epoll of w. What epoll refuses is simply always ready.
func (e *threadsEngine) introduce(w *Watcher) {
	w.known = true
	ev := interest(w)
	if unix.EpollCtl(e.epollFD, unix.EPOLL_CTL_ADD, w.fd, &ev) != nil {
		w.known = false
		w.early = [2]bool{true, true}
	}
}

func (e *threadsEngine) disarm(w *Watcher) {
	w.armed = [2]bool{}
	if w.known {
		_ = unix.EpollCtl(e.epollFD, unix.EPOLL_CTL_DEL, w.fd, nil)
	}
	e.dropEvents(w)
	w.release()
}

// dropEvents forgets what was reported for w and not yet delivered, so that its slot can be used again. What
// is in fired holds w itself and finds it not armed.
func (e *threadsEngine) dropEvents(w *Watcher) {
	for i := range e.events[:e.ready] {
		if e.events[i].Fd == int32(w.index) {
			e.events[i].Fd = -1
		}
	}
}

func (e *threadsEngine) close() {
	unix.Close(e.epollFD)
	unix.Close(e.wakeFD)
}
