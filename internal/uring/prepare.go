package uring

import "encoding/binary"

// The methods below fill in a cleared SQE. Addresses are those of mapped memory (see the package
// comment). What an address points to, be it iovecs, a timespec or a msghdr, may be changed once the entry
// is submitted, because the kernel has copied it; the data itself belongs to the kernel until completion.

// Nop does nothing and completes.
func (s *SQE) Nop() { s.Opcode = IORING_OP_NOP }

// Read is preadv2 of n bytes to addr, with flags RWF_*. At offset ^0 it reads where the file stands, as read does.
func (s *SQE) Read(fd int, addr uintptr, n uint32, off uint64, flags uint32) {
	s.rw(IORING_OP_READ, fd, addr, n, off, flags)
}

// Write is pwritev2 of n bytes from addr, with flags RWF_*.
func (s *SQE) Write(fd int, addr uintptr, n uint32, off uint64, flags uint32) {
	s.rw(IORING_OP_WRITE, fd, addr, n, off, flags)
}

// Readv is preadv2 to the n iovecs at iov.
func (s *SQE) Readv(fd int, iov uintptr, n uint32, off uint64, flags uint32) {
	s.rw(IORING_OP_READV, fd, iov, n, off, flags)
}

// Writev is pwritev2 from the n iovecs at iov.
func (s *SQE) Writev(fd int, iov uintptr, n uint32, off uint64, flags uint32) {
	s.rw(IORING_OP_WRITEV, fd, iov, n, off, flags)
}

// rw fills in what most operations share.
func (s *SQE) rw(op Op, fd int, addr uintptr, n uint32, off uint64, flags uint32) {
	s.Opcode = op
	s.Fd = int32(fd)
	s.Addr = uint64(addr)
	s.Len = n
	s.Off = off
	s.OpFlags = flags
}

// Fsync makes data and metadata of a file durable, or with datasync only what reading the data needs. It waits for
// no write of the same ring: the caller submits it after they have completed.
func (s *SQE) Fsync(fd int, datasync bool) {
	s.rw(IORING_OP_FSYNC, fd, 0, 0, 0, 0)
	if datasync {
		s.OpFlags = IORING_FSYNC_DATASYNC
	}
}

// Fallocate is fallocate with FALLOC_FL_* in mode.
func (s *SQE) Fallocate(fd int, mode uint32, off, n uint64) {
	s.rw(IORING_OP_FALLOCATE, fd, uintptr(n), mode, off, 0)
}

// PollAdd completes when fd has one of events (POLLIN and so on), with those it has. A multishot poll completes again and
// again, for as long as its completions carry IORING_CQE_F_MORE.
func (s *SQE) PollAdd(fd int, events uint32, multishot bool) {
	s.rw(IORING_OP_POLL_ADD, fd, 0, 0, 0, events)
	if bigEndian {
		s.OpFlags = events<<16 | events>>16 // as struct io_uring_sqe wants it
	}
	if multishot {
		s.Len = IORING_POLL_ADD_MULTI
	}
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// PollRemove ends the poll submitted with userData, which then completes with ECANCELED.
func (s *SQE) PollRemove(userData uint64) {
	s.rw(IORING_OP_POLL_REMOVE, -1, uintptr(userData), 0, 0, 0)
}

// AsyncCancel tries to end the operation submitted with userData. It completes with 0 when that one will complete with
// ECANCELED, with ENOENT when it was not found, with EALREADY when it is too far on to be sure. Whatever
// the answer, the operation itself completes once, and only then are its buffers free.
func (s *SQE) AsyncCancel(userData uint64) {
	s.rw(IORING_OP_ASYNC_CANCEL, -1, uintptr(userData), 0, 0, 0)
}

// AsyncCancelAny tries to end every operation of the ring. It completes with their number.
func (s *SQE) AsyncCancelAny() {
	s.rw(IORING_OP_ASYNC_CANCEL, -1, 0, 0, 0, IORING_ASYNC_CANCEL_ANY|IORING_ASYNC_CANCEL_ALL)
}

// Timeout completes with ETIME after the Timespec at ts, or with 0 once count other completions have come, if count
// is not zero. Flags are IORING_TIMEOUT_*.
func (s *SQE) Timeout(ts uintptr, count uint32, flags uint32) {
	s.rw(IORING_OP_TIMEOUT, -1, ts, 1, uint64(count), flags)
}

// TimeoutRemove ends the timeout submitted with userData, which then completes with ECANCELED.
func (s *SQE) TimeoutRemove(userData uint64) {
	s.rw(IORING_OP_TIMEOUT_REMOVE, -1, uintptr(userData), 0, 0, 0)
}

// Recv is recv of up to n bytes to addr, with flags MSG_*.
func (s *SQE) Recv(fd int, addr uintptr, n uint32, flags uint32) {
	s.rw(IORING_OP_RECV, fd, addr, n, 0, flags)
}

// Send is send of n bytes from addr, with flags MSG_*.
func (s *SQE) Send(fd int, addr uintptr, n uint32, flags uint32) {
	s.rw(IORING_OP_SEND, fd, addr, n, 0, flags)
}

// Recvmsg is recvmsg with the msghdr at msg.
func (s *SQE) Recvmsg(fd int, msg uintptr, flags uint32) {
	s.rw(IORING_OP_RECVMSG, fd, msg, 1, 0, flags)
}

// Sendmsg is sendmsg with the msghdr at msg.
func (s *SQE) Sendmsg(fd int, msg uintptr, flags uint32) {
	s.rw(IORING_OP_SENDMSG, fd, msg, 1, 0, flags)
}
