package blocking

import (
	"errors"
	"io"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blockedMax is how long a call blocks before it comes back for a moment.
const blockedMax = 500 * time.Millisecond

// Own takes a socket out of the hands of the runtime: the descriptor is the caller's to close, as is conn.
//
// Blocked calls on it end after a while, and when a signal comes: those without a limit would be begun again by the kernel. When the runtime sends
// a signal it wants the thread to stop, which it cannot in a raw call.
func Own(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd = -1
	errControl := raw.Control(func(s uintptr) {
		if fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = errors.Join(unix.SetNonblock(fd, false), comeBack(fd))
		}
	})
	if err = errors.Join(errControl, err); err != nil && fd >= 0 {
		unix.Close(fd)
	}
	return fd, err
}

func comeBack(fd int) error {
	tick := unix.NsecToTimeval(int64(blockedMax))
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tick))
}

// Receive waits for something and puts it into p.
func Receive(fd int, p []byte) (int, error) {
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

// Wait waits until a socket is ready. A blocked Receive is no substitute where Await was told of many bytes: it takes those that are there, and
// waits for as many more.
func Wait(fd int) {
	p := unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, 0, 0, 0, 0)
		if errno != unix.EINTR {
			return
		}
		runtime.Gosched()
	}
}

// Await has the socket be ready when so many bytes have come.
func Await(fd, n int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) }
