package uring

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
)

// ErrBusy says that the kernel took none of what is pending, or not all, for want of memory or because too many
// completions wait. The entries stay pending: reap, then submit again.
var ErrBusy = errors.New("uring: kernel is short of resources, reap first")

// Next returns the next free SQE, cleared, for the caller to fill in; nil when the queue is full. It is the kernel's
// memory itself, valid until it is submitted.
func (r *Ring) Next() *SQE {
	if check.Enabled {
		r.checkOwner()
	}
	return r.sq.next()
}

// Pending is the number of entries filled in and not yet taken by the kernel.
func (r *Ring) Pending() uint32 { return r.sq.pending() }

// TaskRunPending reports whether completions wait for us to enter the kernel: because finishing them is left to us (deferred
// task work), or because they did not fit the queue. It only reads memory: a poll in user space asks it along with Ready.
//
// Kernels before 5.19 finish their work by interrupting us, and then it says so of the second case only.
func (r *Ring) TaskRunPending() bool { return r.sq.raised(sqTaskrun | sqCQOverflow) }

// Ready reports whether Reap has something to return at once. It only reads memory.
func (r *Ring) Ready() bool { return r.cq.ready() }

// Submit gives all pending entries to the kernel and runs task work that is due, without waiting. With neither there
// is no system call.
//
// Operations that can be done at once are done here, in this thread; their completions can be reaped on return.
func (r *Ring) Submit() error {
	if check.Enabled {
		r.checkPending()
	}
	for {
		n := r.sq.publish()
		if n == 0 && !r.TaskRunPending() {
			r.fruitless = 0
			return nil
		}
		done, errno := r.enterRaw(n, 0, enterGetEvents, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return enterError(errno)
		case done == n:
			r.judge()
			return nil
		case done == 0:
			return ErrBusy
		}
		// Kernels without IORING_SETUP_SUBMIT_ALL stop behind an entry that is wrong.
	}
}

// fruitlessMax is how often in a row an entry may find nothing although the kernel says that work is due. Once it may be work that has come
// just then.
const fruitlessMax = 2

// judge notes whether the kernel still says that work is due when it has just done what there was.
func (r *Ring) judge() {
	if r.cq.ready() || !r.sq.raised(sqTaskrun) {
		r.fruitless = 0
		return
	}
	r.fruitless++
}

// Stuck reports whether the kernel says that task work is due, and entering finds none. Who adds work raises the flag after that: when the owner
// has done the work in between, and taken the flag back, it is raised for nothing, and only the next work has it taken back. Until then each Submit
// is a system call for nothing, and who looks for work believes that there is some. Any completion that comes by task work, such as that of a poll,
// is a remedy.
func (r *Ring) Stuck() bool { return r.fruitless >= fruitlessMax }

// SubmitAndWait gives all pending entries to the kernel and waits until something can be reaped, or for timeout; below zero
// it waits without limit. It may return early with nothing to reap: a signal of the Go runtime ends the wait.
func (r *Ring) SubmitAndWait(timeout time.Duration) error {
	if timeout == 0 || r.Ready() {
		return r.Submit()
	}
	if check.Enabled {
		r.checkPending()
	}
	n := r.sq.publish()
	a := r.args
	a.arg.ts = 0
	if timeout > 0 {
		a.ts = Timespec{int64(timeout / time.Second), int64(timeout % time.Second)}
		a.arg.ts = uint64(uintptr(unsafe.Pointer(&a.ts)))
	}
	switch errno := r.enterWait(n, uintptr(unsafe.Pointer(&a.arg)), unsafe.Sizeof(a.arg)); errno {
	case 0, unix.ETIME, unix.EINTR:
		if r.sq.pending() != 0 {
			return r.Submit()
		}
		return nil
	default:
		return enterError(errno)
	}
}

// enterError sorts the errors of io_uring_enter into the one that reaping cures and the rest.
func enterError(errno unix.Errno) error {
	if errno == unix.EAGAIN || errno == unix.EBUSY {
		return ErrBusy
	}
	return fmt.Errorf("uring: enter ring: %w", errno)
}

// Reap copies completions to out and returns how many. Completions that had not fitted the queue are fetched from the
// kernel when there is room.
func (r *Ring) Reap(out []CQE) int {
	n := r.cq.take(out)
	for n < len(out) && r.sq.raised(sqCQOverflow) {
		r.counters.overflows.Add(1)
		// An error here comes again at the next Submit, which can report it.
		if _, errno := r.enterRaw(0, 0, enterGetEvents, 0, 0); errno != 0 && errno != unix.EINTR {
			break
		}
		more := r.cq.take(out[n:])
		if more == 0 {
			break
		}
		n += more
	}
	if n != 0 {
		r.counters.completed.Add(uint64(n))
	}
	return n
}

// enterWait submits and waits for one completion.
func (r *Ring) enterWait(submit uint32, arg, argLen uintptr) unix.Errno {
	r.counters.waits.Add(1)
	const flags = enterGetEvents | enterExtArg
	var errno unix.Errno
	if r.RawWait {
		_, errno = r.enterRaw(submit, 1, flags, arg, argLen)
	} else {
		_, errno = r.enter(submit, 1, flags, arg, argLen)
	}
	return errno
}

// enter is io_uring_enter as an ordinary system call, for waiting.
func (r *Ring) enter(submit, wait, flags uint32, arg, argLen uintptr) (uint32, unix.Errno) {
	done, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), uintptr(flags), arg, argLen)
	return r.entered(done, errno)
}

// enterRaw is io_uring_enter without a word to the Go scheduler: for what does not wait, and for RawWait.
func (r *Ring) enterRaw(submit, wait, flags uint32, arg, argLen uintptr) (uint32, unix.Errno) {
	done, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), uintptr(flags), arg, argLen)
	return r.entered(done, errno)
}

// entered counts one system call.
func (r *Ring) entered(done uintptr, errno unix.Errno) (uint32, unix.Errno) {
	r.counters.enters.Add(1)
	if errno != 0 {
		if errno == unix.EINTR {
			r.counters.interrupted.Add(1)
		}
		return 0, errno
	}
	if done != 0 {
		r.counters.submitted.Add(uint64(done))
	}
	return uint32(done), 0
}
