package blockcore

import (
	"syscall"

	"nbd-dataplane/internal/check"
)

// opKind says what an operation does.
type opKind uint8

const (
	opRead opKind = iota
	opWrite
	opFdatasync
	opFallocate
)

// operation is one I/O that a Task has handed to its engine. A Task has at most one.
type operation struct {
	// Owned by the context; lent to the engine, and by it to the kernel or a worker, from
	// queue until the Task is resumed.
	kind   opKind
	fd     int
	buffer []byte // off the Go heap
	offset int64
	length int64  // of opFallocate
	flags  uint32 // RWF_* of opRead and opWrite, mode of opFallocate
	result int32  // of the system call; negative = errno
	task   *Task
}

// Pread reads into p, which must come from Buffers, from offset off of fd: one attempt, which may be short.
func (t *Task) Pread(fd int, p []byte, off int64) (int, error) {
	return t.transfer(opRead, fd, p, off, 0)
}

// Pwrite writes p, which must come from Buffers, at offset off of fd: one attempt, which may be short.
// rwFlags are those of pwritev2(2), for instance unix.RWF_DSYNC.
func (t *Task) Pwrite(fd int, p []byte, off int64, rwFlags int) (int, error) {
	return t.transfer(opWrite, fd, p, off, uint32(rwFlags))
}

func (t *Task) transfer(kind opKind, fd int, p []byte, off int64, flags uint32) (int, error) {
	if check.Enabled {
		check.Invariant(t.ctx.memory.Owns(p), "I/O into memory that the Go runtime manages")
	}
	o := &t.op
	o.kind, o.fd, o.buffer, o.offset, o.flags = kind, fd, p, off, flags
	n, err := t.perform()
	o.buffer = nil
	return n, err
}

// Fdatasync has the kernel bring the data of fd to stable storage.
func (t *Task) Fdatasync(fd int) error {
	o := &t.op
	o.kind, o.fd = opFdatasync, fd
	_, err := t.perform()
	return err
}

// Fallocate is fallocate(2).
func (t *Task) Fallocate(fd int, mode uint32, off, length int64) error {
	o := &t.op
	o.kind, o.fd, o.offset, o.length, o.flags = opFallocate, fd, off, length, mode
	_, err := t.perform()
	return err
}

// perform has the engine do t.op and waits for it.
func (t *Task) perform() (int, error) {
	for {
		t.ctx.engine.queue(&t.op)
		t.ctx.batched()
		t.suspend()
		if t.op.result == -int32(syscall.ECANCELED) {
			t.performAside()
		}
		r := t.op.result
		switch {
		case r >= 0:
			return int(r), nil
		case r == -int32(syscall.EINTR):
			// Nothing was done; the signal was the Go runtime's.
		default:
			return 0, syscall.Errno(-r)
		}
	}
}

// performAside has a worker of ours do t.op, which the kernel has given back undone.
//
// The ring gives what may wait to a kernel worker. If it cannot start one, because the process may have no more
// threads, or because a signal came at each of its few attempts (and the Go runtime sends many), it ends what waited for
// one with ECANCELED. We never cancel an operation ourselves. A flush must not fail for that.
func (t *Task) performAside() {
	_ = t.Block(func() error {
		t.op.result = t.op.execute()
		return nil
	})
}
