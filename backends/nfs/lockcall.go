package nfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/imagelock"
)

const (
	// lockFindMax is how long a server is asked where its lock manager is, when nobody has said: a firewall may swallow the question.
	lockFindMax = 5 * time.Second
	// graceEach is how often a lock is asked for while a restarted server gives none.
	graceEach = time.Second
)

// errNoLocks says that a server has no locks. Anything else that goes wrong says nothing of the kind: others may have locks there.
var errNoLocks = errors.New("the server has no lock manager (NLM version 4 over TCP)")

// lockPort remembers where the lock manager was.
type lockPort struct {
	given int // Immutable. 0 = the port mapper knows

	// Safe from anywhere.
	last atomic.Int32
}

// connectLocks connects to the lock manager. It is on no connection for long: a server that is idle would close it, and so tell nothing.
func (d *dialer) connectLocks(ctx context.Context, p *lockPort) (*client, error) {
	port := p.given
	if port == 0 {
		port = int(p.last.Load())
	}
	if port != 0 {
		conn, err := d.connect(ctx, port)
		if err == nil {
			return newClient(ctx, conn, d.cred), nil
		}
		if p.given != 0 || ctx.Err() != nil {
			return nil, fmt.Errorf("connect to the lock manager: %w", err)
		}
	}
	finding, cancel := context.WithTimeout(ctx, lockFindMax)
	defer cancel()
	port, err := d.port(finding, wire.ProgramNLM)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, err
	case errors.Is(err, errNoPort):
		return nil, errNoLocks
	default:
		return nil, fmt.Errorf("%w: ask the port mapper: %w", errNoLocks, err)
	}
	conn, err := d.connect(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("connect to the lock manager: %w", err)
	}
	p.last.Store(int32(port))
	return newClient(ctx, conn, d.cred), nil
}

// locker makes calls of the lock manager about one file, one after the other. It is for what is done off the loop.
type locker struct {
	ctx    context.Context
	client *client
	owner  *wire.LockOwner
	handle wire.Handle
}

// call makes one call. A refusal of the program or the procedure is errNoLocks.
func (l *locker) call(proc wire.LockProc, args []byte) ([]byte, error) {
	b, err := l.client.call(wire.ProgramNLM, uint32(proc), args)
	switch {
	case err == nil:
		return b, nil
	case l.ctx.Err() != nil:
		return nil, fmt.Errorf("%v: no answer: %w", proc, l.ctx.Err())
	case errors.Is(err, syscall.EPROTONOSUPPORT):
		return nil, fmt.Errorf("%w: %w", errNoLocks, err)
	case isTimeout(err), errors.Is(err, net.ErrClosed):
		return nil, fmt.Errorf("%v: no answer: %w", proc, syscall.ETIMEDOUT)
	}
	return nil, fmt.Errorf("%v: %w", proc, err)
}

func (l *locker) lock(at uint64, reclaim bool) (wire.LockStat, error) {
	b, err := l.call(wire.LockNMLock, wire.AppendLock(nil, l.owner, l.handle, at, 1, reclaim))
	if err != nil {
		return 0, err
	}
	return wire.ParseLock(b)
}

// unlock gives back all that an owner has in the file.
func (l *locker) unlock(owner *wire.LockOwner) error {
	return l.unlockRange(owner, imagelock.First, imagelock.SpanBytes)
}

func (l *locker) unlockRange(owner *wire.LockOwner, at, length uint64) error {
	b, err := l.call(wire.LockUnlock, wire.AppendUnlock(nil, owner, l.handle, at, length))
	if err != nil {
		return err
	}
	s, err := wire.ParseLock(b)
	switch {
	case err != nil:
		return err
	case s == wire.LockGranted, s == wire.LockGrace, s == wire.LockStaleHandle:
		return nil // in the time of grace there is none of it left, unless it is reclaimed
	}
	return &wire.LockStatError{Stat: s}
}

// probe asks whether anybody else has a lock on a byte.
func (l *locker) probe(at uint64) (wire.LockStat, wire.LockHolder, error) {
	b, err := l.call(wire.LockTest, wire.AppendLockTest(nil, l.owner, l.handle, at, 1))
	if err != nil {
		return 0, wire.LockHolder{}, err
	}
	return wire.ParseLockTest(b)
}

// take has a byte locked. A server that was just restarted gives, for a time of grace, what was had before and nothing else, and afterwards nothing that
// was had before: had has it asked for both ways. What is not given because of the time is asked for again.
func (l *locker) take(at uint64, had bool) (granted bool, err error) {
	for tries := 0; ; tries++ {
		s, err := l.takeOnce(at, had)
		switch {
		case err != nil && tries > 0 && l.ctx.Err() != nil:
			return false, &wire.LockStatError{Stat: wire.LockGrace} // that is what the time was spent on
		case err != nil:
			return false, err
		case s == wire.LockGranted:
			return true, nil
		case s == wire.LockDenied, s == wire.LockBlocked:
			return false, nil
		case s == wire.LockGrace:
			if err := l.rest(graceEach, s); err != nil {
				return false, err
			}
		case s == wire.LockNoLocks:
			return false, fmt.Errorf("%w: %w", errNoLocks, &wire.LockStatError{Stat: s})
		default:
			return false, fmt.Errorf("%v: %w", wire.LockNMLock, &wire.LockStatError{Stat: s})
		}
	}
}

func (l *locker) takeOnce(at uint64, had bool) (wire.LockStat, error) {
	if had {
		if s, err := l.lock(at, true); err != nil || s == wire.LockGranted {
			return s, err
		}
	}
	return l.lock(at, false)
}

// rest waits, unless it has lasted too long.
func (l *locker) rest(d time.Duration, s wire.LockStat) error {
	select {
	case <-l.ctx.Done():
		return &wire.LockStatError{Stat: s}
	case <-time.After(d):
		return nil
	}
}

// takeAll locks all bytes of a set; denied is one that somebody else has for himself alone.
func (l *locker) takeAll(set imagelock.Set, had bool) (denied *imagelock.Byte, err error) {
	for b := range set.Bytes() {
		granted, err := l.take(uint64(b.Offset), had)
		if err != nil {
			return nil, err
		}
		if !granted {
			return &b, nil
		}
	}
	return nil, nil
}

// look returns who is in the way of a set, nil for nobody. known is false if the server does not say, in its time of grace.
func (l *locker) look(url string, set imagelock.Set) (conflict *imagelock.ConflictError, known bool, err error) {
	for b := range set.Against() {
		s, holder, err := l.probe(uint64(b.Offset))
		switch {
		case err != nil:
			return nil, false, err
		case s == wire.LockGranted:
		case s == wire.LockGrace:
			return nil, false, nil
		case s == wire.LockDenied:
			return &imagelock.ConflictError{Image: url, Permission: b.Permission, Denied: b.Denies, Holder: describeHolder(holder)}, true, nil
		default:
			return nil, false, fmt.Errorf("%v: %w", wire.LockTest, &wire.LockStatError{Stat: s})
		}
	}
	return nil, true, nil
}

// describeHolder says who has a lock, as far as the server knows.
func describeHolder(h wire.LockHolder) string {
	text := fmt.Sprintf("lock owner %#x", h.Number)
	name := bytes.TrimRight(h.Name, "\x00")
	if len(name) == 0 {
		return text
	}
	for _, c := range name {
		if c < ' ' || c > '~' {
			return text
		}
	}
	return fmt.Sprintf("%s (%q)", text, name)
}
