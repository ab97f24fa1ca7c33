package uring

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
)

// checkOwner asserts that the calling thread owns the ring.
func (r *Ring) checkOwner() {
	if tid := unix.Gettid(); tid != r.tid {
		check.Invariant(false, "uring: thread %d uses a ring of thread %d", tid, r.tid)
	}
}

// checkPending asserts, for all entries about to be submitted, that every address in them is memory
// that may be given to the kernel.
func (r *Ring) checkPending() {
	r.checkOwner()
	if r.owns == nil {
		return
	}
	for i := atomic.LoadUint32(r.sq.khead); i != r.sq.tail; i++ {
		r.checkEntry(&r.sq.sqes[i&r.sq.mask])
	}
}

func (r *Ring) checkEntry(s *SQE) {
	addr := uintptr(s.Addr)
	switch s.Opcode {
	case IORING_OP_READ, IORING_OP_WRITE, IORING_OP_SEND, IORING_OP_RECV:
		r.checkMemory(s.Opcode, addr, int(s.Len))
	case IORING_OP_READV, IORING_OP_WRITEV:
		r.checkVector(s.Opcode, addr, int(s.Len))
	case IORING_OP_TIMEOUT, IORING_OP_LINK_TIMEOUT:
		r.checkMemory(s.Opcode, addr, int(unsafe.Sizeof(Timespec{})))
	case IORING_OP_SENDMSG, IORING_OP_RECVMSG:
		r.checkMessage(s.Opcode, addr)
	}
}

func (r *Ring) checkMessage(op Op, addr uintptr) {
	r.checkMemory(op, addr, int(unsafe.Sizeof(unix.Msghdr{})))
	m := (*unix.Msghdr)(pointer(addr))
	r.checkMemory(op, uintptr(unsafe.Pointer(m.Name)), int(m.Namelen))
	r.checkMemory(op, uintptr(unsafe.Pointer(m.Control)), int(m.Controllen))
	r.checkVector(op, uintptr(unsafe.Pointer(m.Iov)), int(m.Iovlen))
}

func (r *Ring) checkVector(op Op, addr uintptr, n int) {
	r.checkMemory(op, addr, n*int(unsafe.Sizeof(unix.Iovec{})))
	for _, v := range unsafe.Slice((*unix.Iovec)(pointer(addr)), n) {
		r.checkMemory(op, uintptr(unsafe.Pointer(v.Base)), int(v.Len))
	}
}

func (r *Ring) checkMemory(op Op, addr uintptr, n int) {
	if n != 0 && !r.owns(addr, n) {
		check.Invariant(false, "uring: %v has %d bytes at %#x, which is not memory for the kernel", op, n, addr)
	}
}

// pointer returns the pointer to mapped memory at addr, which checkMemory has seen. The detour says
// to go vet what it cannot know: that no collector moves what is there.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }
