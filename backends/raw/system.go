package raw

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// system is what a File asks of the kernel; tests put faults in its place.
type system interface {
	// readNow and writeNow are made on the loop's thread.
	readNow(fd int, p []byte, off int64, flags int) (int, error)
	writeNow(fd int, p []byte, off int64, flags int) (int, error)
	// The others suspend t.
	read(t *blockcore.Task, fd int, p []byte, off int64) (int, error)
	write(t *blockcore.Task, fd int, p []byte, off int64, flags int) (int, error)
	sync(t *blockcore.Task, fd int) error
	allocate(t *blockcore.Task, fd int, mode uint32, off, length int64) error
	// seek, discard, truncate and reserve may block: they are called by a worker, seek also by a loop that has found it quick.
	seek(fd int, off int64, whence int) (int64, error)
	discard(fd int, off, length int64) error
	truncate(fd int, sizeBytes int64) error
	reserve(fd int, off, length int64) error
}

// kernel is the real system.
type kernel struct{}

// inlineRawMax is the longest read that is made without telling the Go runtime. The thread keeps its P for that
// long, in exchange the monitor thread is not woken.
const inlineRawMax = 64 << 10

func (kernel) readNow(fd int, p []byte, off int64, flags int) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	var n uintptr
	var errno unix.Errno
	if len(p) <= inlineRawMax && flags&unix.RWF_NOWAIT != 0 {
		n, _, errno = unix.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), offsetHigh(off), uintptr(flags))
	} else {
		n, _, errno = unix.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), offsetHigh(off), uintptr(flags))
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// writeNow takes the plain call where it can: the vectored one costs some 50 ns more.
func (kernel) writeNow(fd int, p []byte, off int64, flags int) (int, error) {
	if flags == 0 {
		return unix.Pwrite(fd, p, off)
	}
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
		uintptr(off), offsetHigh(off), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// offsetHigh is the upper half of a file offset for preadv2(2) and pwritev2(2) where a long has 32 bits.
func offsetHigh(off int64) uintptr {
	if unsafe.Sizeof(uintptr(0)) == 8 {
		return 0
	}
	return uintptr(off >> 32)
}

func (kernel) read(t *blockcore.Task, fd int, p []byte, off int64) (int, error) {
	return t.Pread(fd, p, off)
}

func (kernel) write(t *blockcore.Task, fd int, p []byte, off int64, flags int) (int, error) {
	return t.Pwrite(fd, p, off, flags)
}

func (kernel) sync(t *blockcore.Task, fd int) error { return t.Fdatasync(fd) }

func (kernel) allocate(t *blockcore.Task, fd int, mode uint32, off, length int64) error {
	return t.Fallocate(fd, mode, off, length)
}

func (kernel) seek(fd int, off int64, whence int) (int64, error) {
	for {
		at, err := unix.Seek(fd, off, whence)
		if !errors.Is(err, unix.EINTR) {
			return at, err
		}
	}
}

func (kernel) discard(fd int, off, length int64) error { return discardBlocks(fd, off, length) }

func (kernel) truncate(fd int, sizeBytes int64) error {
	for {
		err := unix.Ftruncate(fd, sizeBytes)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reserve gives a part of a file its place on the disk, without writing there.
func (kernel) reserve(fd int, off, length int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, length)
}

// unsupported reports whether err says that the file system or device will never do the operation.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) ||
		errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENODEV)
}
