package uring

import (
	"strconv"
	"unsafe"
)

// The names and numbers of linux/io_uring.h, in its order.

// Op is an operation of io_uring.
type Op uint8

const (
	IORING_OP_NOP Op = iota
	IORING_OP_READV
	IORING_OP_WRITEV
	IORING_OP_FSYNC
	IORING_OP_READ_FIXED
	IORING_OP_WRITE_FIXED
	IORING_OP_POLL_ADD
	IORING_OP_POLL_REMOVE
	IORING_OP_SYNC_FILE_RANGE
	IORING_OP_SENDMSG
	IORING_OP_RECVMSG
	IORING_OP_TIMEOUT
	IORING_OP_TIMEOUT_REMOVE
	IORING_OP_ACCEPT
	IORING_OP_ASYNC_CANCEL
	IORING_OP_LINK_TIMEOUT
	IORING_OP_CONNECT
	IORING_OP_FALLOCATE
	IORING_OP_OPENAT
	IORING_OP_CLOSE
	IORING_OP_FILES_UPDATE
	IORING_OP_STATX
	IORING_OP_READ
	IORING_OP_WRITE
	IORING_OP_FADVISE
	IORING_OP_MADVISE
	IORING_OP_SEND
	IORING_OP_RECV
)

// opNames has the names of the operations above.
var opNames = [...]string{
	"NOP", "READV", "WRITEV", "FSYNC", "READ_FIXED", "WRITE_FIXED", "POLL_ADD", "POLL_REMOVE",
	"SYNC_FILE_RANGE", "SENDMSG", "RECVMSG", "TIMEOUT", "TIMEOUT_REMOVE", "ACCEPT", "ASYNC_CANCEL",
	"LINK_TIMEOUT", "CONNECT", "FALLOCATE", "OPENAT", "CLOSE", "FILES_UPDATE", "STATX", "READ", "WRITE",
	"FADVISE", "MADVISE", "SEND", "RECV",
}

// String returns the kernel's name without its prefix.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "OP_" + strconv.Itoa(int(o))
}

// Flags of an SQE.
const (
	IOSQE_IO_DRAIN         = 1 << 1 // starts when everything before it is complete
	IOSQE_IO_LINK          = 1 << 2 // the next entry starts when this one has succeeded
	IOSQE_IO_HARDLINK      = 1 << 3 // the same, whatever became of this one
	IOSQE_ASYNC            = 1 << 4 // goes to a kernel worker at once
	IOSQE_CQE_SKIP_SUCCESS = 1 << 6 // no CQE when it succeeds (Linux 5.17)
)

// Flags of single operations.
const (
	IORING_FSYNC_DATASYNC = 1 << 0

	IORING_TIMEOUT_ABS           = 1 << 0
	IORING_TIMEOUT_ETIME_SUCCESS = 1 << 5

	IORING_POLL_ADD_MULTI = 1 << 0

	IORING_ASYNC_CANCEL_ALL = 1 << 0
	IORING_ASYNC_CANCEL_FD  = 1 << 1
	IORING_ASYNC_CANCEL_ANY = 1 << 2

	IORING_RECVSEND_POLL_FIRST = 1 << 0
)

// Flags of a CQE.
const (
	IORING_CQE_F_BUFFER        = 1 << 0
	IORING_CQE_F_MORE          = 1 << 1 // the operation goes on and will complete again
	IORING_CQE_F_SOCK_NONEMPTY = 1 << 2
	IORING_CQE_F_NOTIF         = 1 << 3
)

// Flags of io_uring_setup, with the kernel that brought them.
const (
	setupCQSize       = 1 << 3  // 5.5
	setupClamp        = 1 << 4  // 5.6
	setupRDisabled    = 1 << 6  // 5.10
	setupSubmitAll    = 1 << 7  // 5.18
	setupCoopTaskrun  = 1 << 8  // 5.19
	setupTaskrunFlag  = 1 << 9  // 5.19
	setupSingleIssuer = 1 << 12 // 6.0
	setupDeferTaskrun = 1 << 13 // 6.1
	setupNoSQArray    = 1 << 16 // 6.6
)

// Features that io_uring_setup reports.
const (
	featSingleMmap   = 1 << 0
	featNoDrop       = 1 << 1
	featSubmitStable = 1 << 2
	featExtArg       = 1 << 8 // 5.11
)

// Flags the kernel raises in the memory of the submission queue.
const (
	sqCQOverflow = 1 << 1
	sqTaskrun    = 1 << 2
)

// Flags of io_uring_enter.
const (
	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3
)

// Commands of io_uring_register.
const (
	registerProbe       = 8
	registerEnableRings = 12
)

// Offsets for mmap.
const (
	offSQRing = 0
	offSQEs   = 0x10000000
)

// SQE is one entry of the submission queue, in the kernel's layout (struct io_uring_sqe). The methods
// fill it in; Flags and UserData are the caller's.
type SQE struct {
	Opcode      Op
	Flags       uint8
	Ioprio      uint16
	Fd          int32
	Off         uint64 // or addr2
	Addr        uint64
	Len         uint32
	OpFlags     uint32 // rw_flags, fsync_flags, poll32_events, ...
	UserData    uint64
	BufIndex    uint16
	Personality uint16
	SpliceFdIn  int32 // or file_index
	Addr3       uint64
	_           uint64
}

// CQE is one entry of the completion queue, in the kernel's layout (struct io_uring_cqe). Res is what the
// system call would have returned: a result, or an errno below zero.
type CQE struct {
	UserData uint64
	Res      int32
	Flags    uint32
}

// Timespec is the time that Timeout takes, in the kernel's layout (struct __kernel_timespec). It lies in mapped
// memory until the entry is submitted.
type Timespec struct {
	Sec  int64
	Nsec int64
}

// setupParams is struct io_uring_params.
type setupParams struct {
	sqEntries, cqEntries      uint32
	flags                     uint32
	sqThreadCPU, sqThreadIdle uint32
	features                  uint32
	wqFd                      uint32
	_                         [3]uint32
	sqOff                     sqOffsets
	cqOff                     cqOffsets
}

// sqOffsets is struct io_sqring_offsets.
type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	_                                                           uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	_                                                           uint64
}

// geteventsArg is struct io_uring_getevents_arg, what IORING_ENTER_EXT_ARG points to.
type geteventsArg struct {
	sigmask   uint64
	sigmaskSz uint32
	_         uint32
	ts        uint64
}

// probe is struct io_uring_probe with all entries.
type probe struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [probeOps]probeOp
}

type probeOp struct {
	op, _ uint8
	flags uint16
	_     uint32
}

const (
	probeOps         = 256
	probeOpSupported = 1 << 0
)

// The sizes the kernel expects, checked by the compiler.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(SQE{})-64]
	_ = [1]struct{}{}[unsafe.Sizeof(CQE{})-16]
	_ = [1]struct{}{}[unsafe.Sizeof(setupParams{})-120]
	_ = [1]struct{}{}[unsafe.Sizeof(geteventsArg{})-24]
	_ = [1]struct{}{}[unsafe.Sizeof(probe{})-16-8*probeOps]
)
