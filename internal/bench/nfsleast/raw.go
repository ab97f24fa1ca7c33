package nfsleast

import (
	"io"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vectorsMax is how many pieces the kernel takes in one call (UIO_MAXIOV).
const vectorsMax = 1024

// send sends all of v and waits until the socket has taken it. Raw, as everything here: the thread is the worker's own. When the runtime sends a signal it wants
// the thread to stop, which it cannot in a raw call.
func (v *vector) send(fd int) error {
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

// receive waits for something and puts it into p.
func receive(fd int, p []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
		switch {
		case errno == unix.EINTR || errno == unix.EAGAIN:
			runtime.Gosched()
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// wait waits until a socket is ready. A blocked receive is no substitute where await was told of many bytes: it takes those that are there, and
// waits for as many more.
func wait(fd int) {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
		if errno != unix.EINTR {
			return
		}
		runtime.Gosched()
	}
}

// await has the socket be ready when so many bytes have come.
func await(fd, n int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) }
