package nbd

import (
	"errors"
	"syscall"
)

// wireErrors maps what the block layer reports to the few numbers that the wire has.
// NBD proto.md, "Error values". What is not here is EIO as well, but a test fails when the code below
// names an errno that nobody has thought about.
var wireErrors = map[syscall.Errno]Errno{
	syscall.EPERM:     EPerm,
	syscall.EACCES:    EPerm,
	syscall.EROFS:     EPerm,
	syscall.EIO:       EIO,
	syscall.ENOMEM:    ENoMem,
	syscall.EINVAL:    EInval,
	syscall.ENOSPC:    ENoSpc,
	syscall.EDQUOT:    ENoSpc,
	syscall.EFBIG:     ENoSpc,
	syscall.EOVERFLOW: EOverflow,
	syscall.ENOTSUP:   ENotSup,
	syscall.ESHUTDOWN: EShutdown,
	// What is wrong with the storage, or with us, is nothing that a client could do something about.
	syscall.EBADF:     EIO,
	syscall.EBADMSG:   EIO,
	syscall.ENODEV:    EIO,
	syscall.ENOMEDIUM: EIO,
	syscall.ENOLCK:    EIO,
	syscall.ENXIO:     EIO,
	syscall.EREMOTEIO: EIO,
	syscall.EXDEV:     EIO,
	syscall.ESTALE:    EIO,
	syscall.ETIMEDOUT: EIO,
	syscall.ECANCELED: EIO, // to nobody
	// A server that storage lies on cannot be reached.
	syscall.ECONNREFUSED: EIO,
	syscall.EHOSTUNREACH: EIO,
	syscall.ENETUNREACH:  EIO,
}

// wireErrno returns the number that tells a client of err. ENOTSUP is only for requests with FAST_ZERO, ENOMEM and
// EOVERFLOW are for none that we fail in the backend: those become what the specification asks for.
func wireErrno(err error, flags CommandFlags) Errno {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return EIO
	}
	e, ok := wireErrors[errno]
	switch {
	case !ok, e == ENoMem, e == EOverflow:
		return EIO
	case e == ENotSup && flags&CmdFlagFastZero == 0:
		return EInval
	}
	return e
}

// errorText is what a client is told in words: short, since QEMU's client refuses long ones.
func errorText(err error) string {
	return cut(err.Error(), messageMax)
}
