package wire

import (
	"fmt"
	"syscall"
)

// ProgramNLM is the lock manager, in the version with 64-bit offsets: XNFS (The Open Group, C702) chapters 9 and 10, RFC 1813 appendix II.
var ProgramNLM = Program{100021, 4}

// LockProc is a procedure of the lock manager. XNFS 9.3, RFC 1813 6.3.
type LockProc uint32

// The procedures that are called here. NM_LOCK is LOCK without a status monitor: the server does not expect one at this host, which would tell it of a
// restart, and keeps no list of it on its disk.
const (
	LockTest   LockProc = 1
	LockUnlock LockProc = 4
	LockNMLock LockProc = 22
)

func (p LockProc) String() string {
	switch p {
	case LockTest:
		return "NLM TEST"
	case LockUnlock:
		return "NLM UNLOCK"
	case LockNMLock:
		return "NLM NM_LOCK"
	}
	return fmt.Sprintf("NLM procedure %d", uint32(p))
}

// Limits of the lock manager's protocol, in bytes.
const (
	lockObjectBytesMax = 1024 // XNFS 8, MAXNETOBJ_SZ
	LockOwnerBytesMax  = 64   // of ours: some servers take no more
	LockCallerBytesMax = 255  // of ours; the protocol's LM_MAXSTRLEN is 1024
)

// LockStat is nlm4_stats. RFC 1813 6.3.
type LockStat uint32

// The statuses.
const (
	LockGranted LockStat = iota
	LockDenied
	LockNoLocks
	LockBlocked
	LockGrace
	LockDeadlock
	LockROFS
	LockStaleHandle
	LockFileTooBig
	LockFailed
)

// lockStats are the name and the errno of each status.
var lockStats = [...]struct {
	name  string
	errno syscall.Errno
}{
	LockGranted:     {"NLM4_GRANTED", 0},
	LockDenied:      {"NLM4_DENIED", syscall.EAGAIN},
	LockNoLocks:     {"NLM4_DENIED_NOLOCKS", syscall.ENOLCK},
	LockBlocked:     {"NLM4_BLOCKED", syscall.EAGAIN},
	LockGrace:       {"NLM4_DENIED_GRACE_PERIOD", syscall.EAGAIN},
	LockDeadlock:    {"NLM4_DEADLCK", syscall.EDEADLK},
	LockROFS:        {"NLM4_ROFS", syscall.EROFS},
	LockStaleHandle: {"NLM4_STALE_FH", syscall.ESTALE},
	LockFileTooBig:  {"NLM4_FBIG", syscall.EFBIG},
	LockFailed:      {"NLM4_FAILED", syscall.EREMOTEIO},
}

func (s LockStat) String() string {
	if int(s) < len(lockStats) {
		return lockStats[s].name
	}
	return fmt.Sprintf("NLM status %d", uint32(s))
}

// Errno is what the status is called on this machine; EIO if it is not known.
func (s LockStat) Errno() syscall.Errno {
	if int(s) < len(lockStats) {
		return lockStats[s].errno
	}
	return syscall.EIO
}

// LockStatError is a status that nobody here can do anything about.
type LockStatError struct{ Stat LockStat }

func (e *LockStatError) Error() string { return e.Stat.String() }

// Unwrap returns the errno.
func (e *LockStatError) Unwrap() error { return e.Stat.Errno() }

// LockOwner is who has a lock. Servers tell owners apart by the host and, some of them, by the number alone, some by number and name.
type LockOwner struct {
	Caller string // the host
	Name   []byte // oh
	Number uint32 // svid
}

// appendLock appends nlm4_lock: so many bytes of a file from an offset on, in the name of an owner.
func appendLock(b []byte, o *LockOwner, h Handle, off, length uint64) []byte {
	b = appendOpaque(b, o.Caller)
	b = appendOpaque(b, h)
	b = appendOpaque(b, o.Name)
	b = appendUint32(b, o.Number)
	b = appendUint64(b, off)
	return appendUint64(b, length)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return appendUint32(b, 1)
	}
	return appendUint32(b, 0)
}

// lockCookie is what a reply over UDP would be told by; over TCP the transaction id does that.
var lockCookie = []byte{0, 0, 0, 1}

// AppendLock appends the arguments of NM_LOCK: a shared lock that is not waited for. reclaim says that it was had before the server's restart.
func AppendLock(b []byte, o *LockOwner, h Handle, off, length uint64, reclaim bool) []byte {
	b = appendOpaque(b, lockCookie)
	b = appendBool(b, false) // block
	b = appendBool(b, false) // exclusive
	b = appendLock(b, o, h, off, length)
	b = appendBool(b, reclaim)
	return appendUint32(b, 0) // the state of a status monitor, which there is none of
}

// AppendLockTest appends the arguments of TEST: would an exclusive lock be granted?
func AppendLockTest(b []byte, o *LockOwner, h Handle, off, length uint64) []byte {
	b = appendOpaque(b, lockCookie)
	b = appendBool(b, true)
	return appendLock(b, o, h, off, length)
}

// AppendUnlock appends the arguments of UNLOCK.
func AppendUnlock(b []byte, o *LockOwner, h Handle, off, length uint64) []byte {
	b = appendOpaque(b, lockCookie)
	return appendLock(b, o, h, off, length)
}

// ParseLock reads the results of NM_LOCK and UNLOCK.
func ParseLock(b []byte) (LockStat, error) {
	d := decoder{rest: b}
	d.opaque(lockObjectBytesMax)
	s := LockStat(d.uint32())
	return s, d.err
}

// LockHolder is who is in the way, as far as the server tells: Linux leaves the name out.
type LockHolder struct {
	Exclusive bool
	Number    uint32
	Name      []byte
}

// ParseLockTest reads the results of TEST. There is a holder if the status is LockDenied.
func ParseLockTest(b []byte) (LockStat, LockHolder, error) {
	d := decoder{rest: b}
	d.opaque(lockObjectBytesMax)
	s := LockStat(d.uint32())
	if d.err != nil || s != LockDenied {
		return s, LockHolder{}, d.err
	}
	h := LockHolder{Exclusive: d.bool(), Number: d.uint32()}
	h.Name = d.opaque(lockObjectBytesMax)
	d.uint64()
	d.uint64()
	return s, h, d.err
}
