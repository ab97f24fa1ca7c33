package nfs

import (
	"errors"
	"fmt"
	"syscall"

	"nbd-dataplane/blockcore"
)

// QEMU's image locks, as they are on local files, by the lock manager of the server. A kernel that has the file system mounted turns the locks of its
// programs into the same calls, so they see ours and we see theirs. They are shared locks on single bytes, one for each permission used and one for each
// that is denied to others:
//
//	byte 100+n  somebody uses permission n
//	byte 200+n  somebody does not share permission n
//
// Each takes its own bytes first and then looks for the other's, so of two that come at once at least one notices.
const (
	lockUsesBase   = 100
	lockDeniesBase = 200
	// lockBits is how many permissions there are.
	lockBits = 4
	// lockSpan covers all of them.
	lockSpan = lockDeniesBase + lockBits - lockUsesBase
)

// Locking says whether image locks are taken.
type Locking uint8

// The ways, by QEMU's names.
const (
	LockAuto Locking = iota // where the server has them, else warn
	LockOn                  // or fail
	LockOff
)

// lockingNames are in the order of Locking.
var lockingNames = [...]string{"auto", "on", "off"}

func (l Locking) String() string { return lockingNames[l] }

// ParseLocking reads one of QEMU's names.
func ParseLocking(s string) (Locking, error) {
	for l, name := range lockingNames {
		if s == name {
			return Locking(l), nil
		}
	}
	return LockAuto, fmt.Errorf("locking mode %q: use auto, on or off", s)
}

// lockSet is what a user of a file does, and what others may not do.
type lockSet struct{ uses, denies blockcore.Permissions }

// lockSet returns the locks of a disk that is opened with o: they are those of a file on this host.
func (o *Options) lockSet() lockSet {
	s := lockSet{uses: blockcore.PermRead, denies: blockcore.PermResize}
	if !o.ReadOnly {
		s.uses |= blockcore.PermWrite
	}
	if o.Grows && !o.ReadOnly {
		s.uses |= blockcore.PermResize
	}
	if !o.ShareRW {
		s.denies |= blockcore.PermWrite
	}
	return s
}

// lockByte is one byte that stands for a permission.
type lockByte struct {
	at         uint64
	permission blockcore.Permissions
	denies     bool // it says that the permission is not shared
}

// bytes returns what is to be locked.
func (s lockSet) bytes() (all []lockByte) {
	for n := range uint64(lockBits) {
		bit := blockcore.Permissions(1) << n
		if s.uses&bit != 0 {
			all = append(all, lockByte{lockUsesBase + n, bit, false})
		}
		if s.denies&bit != 0 {
			all = append(all, lockByte{lockDeniesBase + n, bit, true})
		}
	}
	return all
}

// against returns what others must not have locked, in QEMU's order.
func (s lockSet) against() (all []lockByte) {
	for n := range uint64(lockBits) {
		bit := blockcore.Permissions(1) << n
		if s.uses&bit != 0 {
			all = append(all, lockByte{lockDeniesBase + n, bit, true})
		}
		if s.denies&bit != 0 {
			all = append(all, lockByte{lockUsesBase + n, bit, false})
		}
	}
	return all
}

// LockError says that somebody else uses the file in a way that excludes ours.
type LockError struct {
	URL        string
	Permission blockcore.Permissions // one bit
	Denied     bool                  // others do not share it; otherwise they use what we do not share
	Holder     string                // who, as far as the server tells
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
	return fmt.Sprintf("Is another process using the image [%s]?", e.URL)
}

func (e *LockError) Error() string {
	return e.Message() + ": the server says that " + e.Holder + " has the file"
}

// Unwrap lets the error be taken for EAGAIN.
func (e *LockError) Unwrap() error { return syscall.EAGAIN }

// isLocked reports whether an error is that somebody else has the file.
func isLocked(err error) bool {
	_, is := errors.AsType[*LockError](err)
	return is
}

// LockLostError says that a lock was lost, and somebody else has the file: nothing is written any more.
type LockLostError struct{ Err error }

func (e *LockLostError) Error() string {
	return fmt.Sprintf("the lock of the file was lost at the server, and it is used by another now (%v); writes are refused until the disk is opened anew", e.Err)
}

// Unwrap has clients see an I/O error.
func (e *LockLostError) Unwrap() error { return syscall.EIO }
