package blocking

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectorsMax is how many pieces the kernel takes in one call (UIO_MAXIOV).
const vectorsMax = 1024

// Vector is one message of many pieces.
type Vector struct {
	// Owned by the worker's thread.
	iovecs []unix.Iovec
	bytes  int
	msg    unix.Msghdr
}

// Reset makes it empty.
func (v *Vector) Reset() { v.iovecs, v.bytes = v.iovecs[:0], 0 }

// Bytes is how long it is.
func (v *Vector) Bytes() int { return v.bytes }

// Add appends a piece, which stays the caller's and must not change until the message is sent.
func (v *Vector) Add(p []byte) {
	if len(p) > 0 {
		v.iovecs = append(v.iovecs, unix.Iovec{Base: &p[0], Len: uint64(len(p))})
		v.bytes += len(p)
	}
}

// Send sends all of v and waits until the socket has taken it.
func (v *Vector) Send(fd int) error {
	for at := v.iovecs; len(at) > 0; {
		v.msg = unix.Msghdr{Iov: &at[0], Iovlen: uint64(min(len(at), vectorsMax))}
		r, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.msg)), unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
		case unix.EINTR, unix.EAGAIN:
			runtime.Gosched()
			continue
		default:
			return errno
		}
		n := uint64(r)
		for n > 0 && n >= at[0].Len {
			n -= at[0].Len
			at = at[1:]
		}
		if n > 0 {
			at[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(at[0].Base), n))
			at[0].Len -= n
		}
	}
	return nil
}
