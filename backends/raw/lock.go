package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// QEMU's image locks are shared locks on single bytes of the image, one for each permission used and
// one for each permission denied to others:
//
//	byte 100+n  somebody uses permission n
//	byte 200+n  somebody does not share permission n
//
// Two users conflict when one uses what the other does not share. Each takes its own bytes first and
// then looks for the other's, so of two that come at once at least one notices. The bytes need not exist in
// the file. The locks belong to an open file description (fcntl F_OFD_SETLK), not to the process, so they must be
// on a descriptor that is not closed, or duplicated into a child, as long as the image is in use.
const (
	lockUsesBase   = 100
	lockDeniesBase = 200
)

// LockError says that another process uses the image in a way that excludes ours.
type LockError struct {
	Path       string
	Permission blockcore.Permissions // one bit
	Denied     bool                  // others do not share it; otherwise they use what we do not share
}

// Message is QEMU's wording of the error.
func (e *LockError) Message() string {
	shared := ""
	if !e.Denied {
		shared = "shared "
	}
	return fmt.Sprintf("Failed to get %s%q lock", shared, e.Permission.String())
}

// Hint is QEMU's second line.
func (e *LockError) Hint() string {
	return fmt.Sprintf("Is another process using the image [%s]?", e.Path)
}

func (e *LockError) Error() string { return e.Message() + ". " + e.Hint() }

// Unwrap lets the error be taken for EAGAIN.
func (e *LockError) Unwrap() error { return unix.EAGAIN }

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

// lockSet is the bytes that a user of an image has locked.
type lockSet struct {
	uses, denies blockcore.Permissions
}

func newLockSet(uses, shares blockcore.Permissions) lockSet {
	return lockSet{uses: uses, denies: blockcore.PermAll &^ shares}
}

func (s lockSet) with(o lockSet) lockSet { return lockSet{s.uses | o.uses, s.denies | o.denies} }

func (s lockSet) without(o lockSet) lockSet { return lockSet{s.uses &^ o.uses, s.denies &^ o.denies} }

// setLocks locks or unlocks all bytes of s on fd.
func setLocks(ops lockOps, fd int, s lockSet, kind int16) error {
	for n := range lockBits {
		if err := setByte(ops, fd, lockUsesBase+n, s.uses&(1<<n) != 0, kind); err != nil {
			return err
		}
		if err := setByte(ops, fd, lockDeniesBase+n, s.denies&(1<<n) != 0, kind); err != nil {
			return err
		}
	}
	return nil
}

func setByte(ops lockOps, fd, at int, wanted bool, kind int16) error {
	if !wanted {
		return nil
	}
	return ops.set(fd, &unix.Flock_t{Type: kind, Start: int64(at), Len: 1})
}

// widenLocks takes what to has beside from, which is held on fd, and looks whether somebody is in the way of to. Nothing of from
// is given back yet: that is narrowLocks, when it is certain that to stands, or that it does not. On failure from is held, no more
// and no less.
func widenLocks(ops lockOps, fd int, path string, from, to lockSet) error {
	err := setLocks(ops, fd, to.without(from), unix.F_RDLCK)
	if err != nil {
		err = fmt.Errorf("lock %s: %w", path, err)
	} else {
		err = lookForConflicts(ops, fd, path, to)
	}
	if err != nil {
		narrowLocks(ops, fd, from.with(to), from)
	}
	return err
}

// narrowLocks gives back what from has beside to.
func narrowLocks(ops lockOps, fd int, from, to lockSet) {
	// Giving back fails only where taking has failed too.
	_ = setLocks(ops, fd, from.without(to), unix.F_UNLCK)
}

func lookForConflicts(ops lockOps, fd int, path string, s lockSet) error {
	for n := range lockBits {
		bit := blockcore.Permissions(1) << n
		if err := lookForByte(ops, fd, lockDeniesBase+n, s.uses&bit != 0); err != nil {
			return lockConflict(err, &LockError{Path: path, Permission: bit, Denied: true})
		}
		if err := lookForByte(ops, fd, lockUsesBase+n, s.denies&bit != 0); err != nil {
			return lockConflict(err, &LockError{Path: path, Permission: bit})
		}
	}
	return nil
}

var errByteLocked = errors.New("locked by another")

func lockConflict(err error, conflict *LockError) error {
	if errors.Is(err, errByteLocked) {
		return conflict
	}
	return fmt.Errorf("look for locks of %s: %w", conflict.Path, err)
}

// lookForByte asks whether an exclusive lock would be granted, which it is not when anybody else has
// even a shared one.
func lookForByte(ops lockOps, fd, at int, wanted bool) error {
	if !wanted {
		return nil
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(at), Len: 1}
	if err := ops.probe(fd, &l); err != nil {
		return err
	}
	if l.Type != unix.F_UNLCK {
		return errByteLocked
	}
	return nil
}

// takeLocks opens the file description that holds the locks of the image open at fd. It returns -1 when there are
// to be none.
func takeLocks(o *Options, ops lockOps, fd int) (int, error) {
	if o.Locking == LockOff || o.ForceShare {
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
	err = widenLocks(ops, lockFD, o.Path, lockSet{}, o.locks())
	if err == nil {
		return lockFD, nil
	}
	unix.Close(lockFD)
	if o.Locking == LockAuto && locksUnsupported(err) {
		o.warn("%s: no image locks on this file system (%v): another process could write it as well", o.Path, err)
		return -1, nil
	}
	return -1, err
}
