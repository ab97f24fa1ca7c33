package uring

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setupAlways is asked for on every kernel. A disabled ring starts when its owner says so, which makes that
// thread the single issuer whoever has called New.
const setupAlways = setupRDisabled | setupCQSize | setupClamp

// ladder is what else is asked for, from the best to what Linux 5.11 takes. A kernel answers EINVAL to
// a flag it does not know, then the next rung is tried.
var ladder = []uint32{
	// Completions are worked on when their owner enters the kernel, and never interrupt it.
	setupSubmitAll | setupTaskrunFlag | setupSingleIssuer | setupDeferTaskrun | setupNoSQArray,
	setupSubmitAll | setupTaskrunFlag | setupSingleIssuer | setupDeferTaskrun,
	// They are worked on at any entry into the kernel.
	setupSubmitAll | setupTaskrunFlag | setupSingleIssuer | setupCoopTaskrun,
	setupSubmitAll | setupTaskrunFlag | setupCoopTaskrun,
	// They interrupt it.
	setupSubmitAll,
	0,
}

// featuresNeeded has no substitute here: one mapping for both queues, no lost completions,
// arguments free for reuse once submitted, a timeout for a wait.
const featuresNeeded = featSingleMmap | featNoDrop | featSubmitStable | featExtArg

// setupCall is io_uring_setup; tests put an older or a stricter kernel in its place.
type setupCall func(entries uint32, p *setupParams) (fd int, errno unix.Errno)

func setup(entries uint32, p *setupParams) (int, unix.Errno) {
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	return int(fd), errno
}

// climb makes a ring with the best rung of the ladder that the kernel takes.
func climb(want Params, call setupCall) (int, *setupParams, error) {
	errno := unix.EINVAL
	for _, rung := range ladder {
		p := &setupParams{flags: setupAlways | rung, cqEntries: want.CQEntries}
		var fd int
		if fd, errno = call(want.Entries, p); errno == unix.EINVAL {
			continue
		} else if errno != 0 {
			break
		}
		if missing := featuresNeeded &^ p.features; missing != 0 {
			unix.Close(fd)
			return -1, nil, fmt.Errorf("uring: %w: this kernel is too old (lacks features %#x): needs Linux 5.11, use another aio engine: %w",
				ErrUnavailable, missing, unix.ENOSYS)
		}
		return fd, p, nil
	}
	return -1, nil, setupError(errno, disabledSysctl())
}

// ErrUnavailable is wrapped by the errors of New that say that this host will not give anybody a ring, so
// that another engine is the answer and not another try.
var ErrUnavailable = errors.New("io_uring is not available")

// setupError says what an errno of io_uring_setup means to the one who runs the program.
func setupError(errno unix.Errno, disabled string) error {
	switch errno {
	case unix.ENOSYS:
		return fmt.Errorf("uring: %w: this kernel was built without it: use another aio engine: %w", ErrUnavailable, errno)
	case unix.EPERM, unix.EACCES:
		if disabled == "1" || disabled == "2" {
			return fmt.Errorf("uring: %w: the sysctl kernel.io_uring_disabled is %s: set it to 0 or use another aio engine: %w",
				ErrUnavailable, disabled, errno)
		}
		return fmt.Errorf("uring: %w: forbidden, probably by a container's seccomp filter: allow it there or use another aio engine: %w",
			ErrUnavailable, errno)
	case unix.EINVAL:
		return fmt.Errorf("uring: %w: this kernel is too old: needs Linux 5.11, use another aio engine: %w", ErrUnavailable, errno)
	case unix.ENOMEM:
		return fmt.Errorf("uring: set up ring: out of memory, or of lockable memory: raise the limit (ulimit -l): %w", errno)
	case unix.EMFILE, unix.ENFILE:
		return fmt.Errorf("uring: set up ring: out of file descriptors: raise the limit (ulimit -n): %w", errno)
	}
	return fmt.Errorf("uring: set up ring: %w", errno)
}

// disabledSysctl returns the value of kernel.io_uring_disabled, empty where there is none (Linux before 6.6).
func disabledSysctl() string {
	v, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(v))
}
