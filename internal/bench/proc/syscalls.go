package proc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Places where the number of the tracepoint that every system call passes may be found.
var sysEnterFiles = []string{
	"/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
	"/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
}

// SyscallCounter counts the system calls of a tree of processes and of the threads and
// processes they start, through perf_event_open(2). Unlike strace it does not stop the
// threads at each call, so that what is counted is the program at nearly its own pace;
// still it costs some 10 percent, and runs that are timed should go without it.
type SyscallCounter struct {
	// Immutable.
	fds []int
}

// CountSyscalls begins to count the calls of the tree of processes under pid. It needs
// the rights of perf(1).
func CountSyscalls(pid int) (*SyscallCounter, error) {
	event, err := sysEnter()
	if err != nil {
		return nil, err
	}
	pids, err := Tree(pid)
	if err != nil {
		return nil, err
	}
	c := &SyscallCounter{}
	for _, p := range pids {
		tids, err := Threads(p)
		if err != nil {
			continue // the process has just gone
		}
		for _, tid := range tids {
			if err := c.open(event, tid); err != nil {
				return nil, errors.Join(err, c.Close())
			}
		}
	}
	return c, nil
}

func sysEnter() (uint64, error) {
	var errs []error
	for _, name := range sysEnterFiles {
		text, err := os.ReadFile(name)
		if err == nil {
			return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		}
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("finding the system call tracepoint: %w", errors.Join(errs...))
}

func (c *SyscallCounter) open(event uint64, tid int) error {
	attr := &unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_TRACEPOINT,
		Size:   unix.PERF_ATTR_SIZE_VER0,
		Config: event,
		Bits:   unix.PerfBitInherit, // threads and processes started from now on
	}
	fd, err := unix.PerfEventOpen(attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err == unix.ESRCH {
		return nil // the thread has just gone
	}
	if err != nil {
		return fmt.Errorf("counting system calls: %w", err)
	}
	c.fds = append(c.fds, fd)
	return nil
}

// Count returns how many calls were made since the counter was opened.
func (c *SyscallCounter) Count() (int64, error) {
	var sum int64
	for _, fd := range c.fds {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			return 0, fmt.Errorf("counting system calls: %w", err)
		}
		sum += int64(binary.NativeEndian.Uint64(b[:]))
	}
	return sum, nil
}

// Close stops counting.
func (c *SyscallCounter) Close() error {
	var errs []error
	for _, fd := range c.fds {
		errs = append(errs, unix.Close(fd))
	}
	c.fds = nil
	return errors.Join(errs...)
}
