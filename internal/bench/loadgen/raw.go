package loadgen

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	receiveTick = 500 * time.Millisecond // a blocked receive comes back this often, see the package comment
	silenceMax  = 30 * time.Second       // a server silent for longer is dead
)

var (
	errClosed = errors.New("server closed the connection")
	errSilent = errors.New("server did not answer for " + silenceMax.String())
)

// lost names what a broken connection is: the server has gone, whichever way we learn it.
func lost(errno unix.Errno) error {
	if errno == unix.EPIPE || errno == unix.ECONNRESET {
		return fmt.Errorf("%w (%w)", errClosed, errno)
	}
	return errno
}

// recv receives what is there into b, waiting for it if wait is set. Raw: the thread is
// the worker's own, and the runtime's bookkeeping around an ordinary blocking system
// call costs as much as the call.
func recv(fd int, b []byte, wait bool) (int, unix.Errno) {
	flags := uintptr(0)
	if !wait {
		flags = unix.MSG_DONTWAIT
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), flags, 0, 0)
	return int(n), errno
}

// sendmsg sends what the socket takes at once.
func sendmsg(fd int, m *unix.Msghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(m)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return int(n), errno
}

// poll waits for an event of p, at most receiveTick.
func poll(p *unix.PollFd, timeout *unix.Timespec) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(p)), 1, uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	return errno
}
