package blockcore

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
	"nbd-dataplane/internal/uring"
)

// Sizes of the ring of one context. The submission queue holds what one turn starts as a rule; more is
// submitted in between. The completion queue holds all that a busy context has in flight; beyond that the kernel
// keeps completions for us, which is slower and loses nothing.
const (
	ringEntries   = 256
	ringCQEntries = 4096
	reapBatch     = 128
)

// ringOps are the operations that the engine cannot do without.
var ringOps = []uring.Op{
	uring.IORING_OP_READ, uring.IORING_OP_WRITE, uring.IORING_OP_FSYNC, uring.IORING_OP_FALLOCATE,
	uring.IORING_OP_POLL_ADD, uring.IORING_OP_POLL_REMOVE,
}

// uringEngine does everything through one io_uring: I/O, readiness and waking.
type uringEngine struct {
	// Immutable.
	ctx    *AioContext
	ring   *uring.Ring
	wakeFD int // eventfd, polled by the ring

	// Owned by the context.
	starved []*operation // found no room in the submission queue
	cqes    [reapBatch]uring.CQE
}

// What a completion is about: the upper half of its user data; the lower half is a slot.
const (
	aboutTask uint64 = iota + 1
	aboutIn
	aboutOut
	aboutWake
	aboutRemovalIn
	aboutRemovalOut
)

func userData(about uint64, index uint32) uint64 { return about<<32 | uint64(index) }

func newURingEngine(c *AioContext) (engine, error) {
	ring, err := uring.New(uring.Params{Entries: ringEntries, CQEntries: ringCQEntries, Owns: c.memory.OwnsRange})
	if err != nil {
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	for _, op := range ringOps {
		if !ring.Supports(op) {
			ring.Close()
			return nil, fmt.Errorf("io_uring: this kernel lacks %v; use --aio=threads", op)
		}
	}
	wakeFD, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		ring.Close()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &uringEngine{ctx: c, ring: ring, wakeFD: wakeFD}, nil
}

func (e *uringEngine) name() string { return "io_uring" }

func (e *uringEngine) start() error {
	if err := e.ring.Enable(); err != nil {
		return fmt.Errorf("io_uring: %w", err)
	}
	e.pollWake()
	return nil
}

// pollWake has the ring report each write to the eventfd. Nobody needs to read it: the poll reports
// every wake-up, and the counter does not overflow in the life of a process.
func (e *uringEngine) pollWake() {
	sqe := e.next()
	sqe.PollAdd(e.wakeFD, unix.POLLIN, true)
	sqe.UserData = userData(aboutWake, 0)
}

// next returns a free SQE, submitting what is there to make room.
func (e *uringEngine) next() *uring.SQE {
	for {
		if sqe := e.ring.Next(); sqe != nil {
			return sqe
		}
		e.enter()
	}
}

func (e *uringEngine) queue(o *operation) {
	sqe := e.ring.Next()
	if sqe == nil {
		e.starved = append(e.starved, o)
		return
	}
	o.prepare(sqe)
}

// prepare writes o into sqe. The buffer is off the Go heap and referenced by o until the
// completion, so its address may go to the kernel.
func (o *operation) prepare(sqe *uring.SQE) {
	switch o.kind {
	case opRead:
		sqe.Read(o.fd, address(o.buffer), uint32(len(o.buffer)), uint64(o.offset), o.flags)
	case opWrite:
		sqe.Write(o.fd, address(o.buffer), uint32(len(o.buffer)), uint64(o.offset), o.flags)
	case opFdatasync:
		sqe.Fsync(o.fd, true)
	case opFallocate:
		sqe.Fallocate(o.fd, o.flags, uint64(o.offset), uint64(o.length))
	}
	sqe.UserData = userData(aboutTask, o.task.index)
}

func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }

func (e *uringEngine) queued() int { return int(e.ring.Pending()) + len(e.starved) }

func (e *uringEngine) submit() {
	e.enter()
	for len(e.starved) > 0 {
		sqe := e.ring.Next()
		if sqe == nil {
			return
		}
		e.starved[0].prepare(sqe)
		e.starved[0] = nil
		e.starved = e.starved[1:]
		if len(e.starved) == 0 {
			e.starved = nil
			e.enter()
		}
	}
}

// enter submits. A full completion queue is no error: reap makes room, and the next turn submits the rest.
func (e *uringEngine) enter() {
	err := e.ring.Submit()
	if err != nil && !errors.Is(err, uring.ErrBusy) {
		panic(fmt.Sprintf("io_uring_enter: %v", err))
	}
	if e.ring.Stuck() {
		e.wake() // a completion for the ring to come loose; the loop would look for ever, and never sleep
	}
}

func (e *uringEngine) pollReady() bool { return e.ring.Ready() || e.ring.TaskRunPending() }

func (e *uringEngine) reap() bool {
	worked := false
	for {
		n := e.ring.Reap(e.cqes[:])
		for i := range e.cqes[:n] {
			e.deliver(&e.cqes[i])
		}
		worked = worked || n > 0
		if n < len(e.cqes) {
			return worked
		}
	}
}

func (e *uringEngine) deliver(cqe *uring.CQE) {
	index := uint32(cqe.UserData)
	switch cqe.UserData >> 32 {
	case aboutTask:
		t := e.ctx.tasks.at(index)
		t.op.result = cqe.Res
		e.ctx.resume(t)
	case aboutIn:
		e.fire(index, directionIn)
	case aboutOut:
		e.fire(index, directionOut)
	case aboutWake:
		if cqe.Flags&uring.IORING_CQE_F_MORE == 0 {
			e.pollWake()
		}
	case aboutRemovalIn:
		e.removed(index, directionIn, cqe.Res)
	case aboutRemovalOut:
		e.removed(index, directionOut, cqe.Res)
	default:
		check.Invariant(false, "completion for nothing we know: user data %#x", cqe.UserData)
	}
}

// fire delivers a poll; errors of the poll count as readiness, the next read or write tells.
func (e *uringEngine) fire(index uint32, d direction) {
	w := e.ctx.watchers.at(index)
	w.fire(d)
	// A handler that closed its Watcher with nothing else armed has released it already.
	if e.ctx.watchers.at(index) == w && w.closed && !w.armed[directionIn] && !w.armed[directionOut] {
		w.release()
	}
}

func (e *uringEngine) wait(timeout time.Duration, patient bool) {
	e.ring.RawWait = !patient
	if len(e.starved) > 0 {
		e.submit()
		timeout = 0
	}
	err := e.ring.SubmitAndWait(timeout)
	if err != nil && !errors.Is(err, uring.ErrBusy) {
		panic(fmt.Sprintf("io_uring_enter: %v", err))
	}
}

func (e *uringEngine) wake() { writeEventfd(e.wakeFD) }

func (e *uringEngine) arm(w *Watcher, d direction) {
	w.armed[d] = true
	events, about := uint32(unix.POLLIN|unix.POLLRDHUP), aboutIn
	if d == directionOut {
		events, about = unix.POLLOUT, aboutOut
	}
	sqe := e.next()
	sqe.PollAdd(w.fd, events, false)
	sqe.UserData = userData(about, w.index)
}

func (e *uringEngine) disarm(w *Watcher) {
	if !w.armed[directionIn] && !w.armed[directionOut] {
		w.release()
		return
	}
	for d := range w.armed {
		if w.armed[d] {
			e.remove(w.index, direction(d))
		}
	}
}

// remove takes back a poll, which holds the file open however often the descriptor is closed.
func (e *uringEngine) remove(index uint32, d direction) {
	about := [2]uint64{aboutIn, aboutOut}[d]
	sqe := e.next()
	sqe.PollRemove(userData(about, index))
	sqe.UserData = userData([2]uint64{aboutRemovalIn, aboutRemovalOut}[d], index)
}

// removed hears how remove went. A poll that is just being woken cannot be taken back; if it then finds that there was nothing,
// because somebody has read it meanwhile, it waits on. So it is taken back once more, until its end has been heard of.
func (e *uringEngine) removed(index uint32, d direction, result int32) {
	w := e.ctx.watchers.at(index)
	if result == -int32(unix.EALREADY) && w != nil && w.closed && w.armed[d] {
		e.remove(index, d)
	}
}

func (e *uringEngine) close() {
	e.ring.Close()
	unix.Close(e.wakeFD)
}
