package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/imagelock"
)

// QEMU's image locks (internal/imagelock) belong to an open file description here (fcntl F_OFD_SETLK), not to the process, so they must be on a descriptor
// that is not closed, or duplicated into a child, as long as the image is in use.

// locks returns what is locked for a disk that is opened with o.
func (o *Options) locks() imagelock.Set {
	return imagelock.Use{ReadOnly: o.ReadOnly, ShareRW: o.ShareRW, Grows: o.Grows}.Set()
}

// lockOps are the two system calls, for tests.
type lockOps interface {
	set(fd int, l *unix.Flock_t) error
	probe(fd int, l *unix.Flock_t) error
}

type kernelLocks struct{}

func (kernelLocks) set(fd int, l *unix.Flock_t) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, l)
}

func (kernelLocks) probe(fd int, l *unix.Flock_t) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, l)
}

// locksUnsupported reports whether err says that the file system, or the kernel, has no such locks.
func locksUnsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK) ||
		errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// setLocks locks or unlocks all bytes of s on fd.
func setLocks(ops lockOps, fd int, s imagelock.Set, kind int16) error {
	for b := range s.Bytes() {
		if err := ops.set(fd, &unix.Flock_t{Type: kind, Start: b.Offset, Len: 1}); err != nil {
			return err
		}
	}
	return nil
}

// widenLocks takes what to has beside from, which is held on fd, and looks whether somebody is in the way of to. Nothing of from
// is given back yet: that is narrowLocks, when it is certain that to stands, or that it does not. On failure from is held, no more
// and no less.
func widenLocks(ops lockOps, fd int, path string, from, to imagelock.Set) error {
	err := setLocks(ops, fd, to.Without(from), unix.F_RDLCK)
	if err != nil {
		err = fmt.Errorf("lock %s: %w", path, err)
	} else {
		err = lookForConflicts(ops, fd, path, to)
	}
	if err != nil {
		narrowLocks(ops, fd, from.With(to), from)
	}
	return err
}

// narrowLocks gives back what from has beside to.
func narrowLocks(ops lockOps, fd int, from, to imagelock.Set) {
	// Giving back fails only where taking has failed too.
	_ = setLocks(ops, fd, from.Without(to), unix.F_UNLCK)
}

func lookForConflicts(ops lockOps, fd int, path string, s imagelock.Set) error {
	for b := range s.Against() {
		locked, err := isLocked(ops, fd, b.Offset)
		if err != nil {
			return fmt.Errorf("look for locks of %s: %w", path, err)
		}
		if locked {
			return &imagelock.ConflictError{Image: path, Permission: b.Permission, Denied: b.Denies}
		}
	}
	return nil
}

// isLocked asks whether an exclusive lock would not be granted, as anybody else has even a shared one.
func isLocked(ops lockOps, fd int, at int64) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	err := ops.probe(fd, &l)
	return err == nil && l.Type != unix.F_UNLCK, err
}

// takeLocks opens the file description that holds the locks of the image open at fd. It returns -1 when there are
// to be none.
func takeLocks(o *Options, ops lockOps, fd int) (int, error) {
	if o.Locking == imagelock.Off || o.ForceShare {
		return -1, nil
	}
	// The path may name another file by now; the descriptor does not.
	lockFD, err := openRetry(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		lockFD, err = openRetry(o.Path, unix.O_RDONLY|unix.O_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s for locking: %w", o.Path, err)
	}
	err = widenLocks(ops, lockFD, o.Path, imagelock.Set{}, o.locks())
	if err == nil {
		return lockFD, nil
	}
	unix.Close(lockFD)
	if o.Locking == imagelock.Auto && locksUnsupported(err) {
		o.warn("%s: no image locks on this file system (%v): another process could write it as well", o.Path, err)
		return -1, nil
	}
	return -1, err
}
