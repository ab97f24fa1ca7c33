package nfstest

import "slices"

// LockManager says what lock manager a server has.
type LockManager int

// The lock managers.
const (
	NoLocks    LockManager = iota
	NamedLocks             // owners are told apart by number and name, and holders are told by both, as by nfs-ganesha
	LinuxLocks             // owners are told apart by their number alone, and of a holder nothing else is told
)

// Lock is a lock on some bytes of a file. LengthBytes 0 is up to the end, wherever that is.
type Lock struct {
	Host      string
	Number    uint32
	Owner     string
	Exclusive bool

	Offset, LengthBytes uint64
}

func (l Lock) end() uint64 {
	if l.LengthBytes == 0 {
		return 1<<64 - 1
	}
	return l.Offset + l.LengthBytes
}

func (l Lock) overlaps(o Lock) bool { return l.Offset < o.end() && o.Offset < l.end() }

// lockTable is the locks of all files. Guarded by Server.mu.
type lockTable struct {
	of    map[uint64][]Lock
	grace bool // only locks that were held before are given
}

func (s *Server) sameOwner(a, b Lock) bool {
	return a.Host == b.Host && a.Number == b.Number && (s.options.Locks == LinuxLocks || a.Owner == b.Owner)
}

// inTheWay is a lock of another owner that does not go with l.
func (s *Server) inTheWay(file uint64, l Lock) (Lock, bool) {
	for _, have := range s.locks.of[file] {
		if have.overlaps(l) && !s.sameOwner(have, l) && (have.Exclusive || l.Exclusive) {
			return have, true
		}
	}
	return Lock{}, false
}

// giveBack takes the bytes of l from what its owner has.
func (s *Server) giveBack(file uint64, l Lock) {
	var left []Lock
	for _, have := range s.locks.of[file] {
		if !s.sameOwner(have, l) || !have.overlaps(l) {
			left = append(left, have)
			continue
		}
		if have.Offset < l.Offset {
			before := have
			before.LengthBytes = l.Offset - have.Offset
			left = append(left, before)
		}
		if l.end() < have.end() {
			behind := have
			behind.Offset = l.end()
			if have.LengthBytes != 0 {
				behind.LengthBytes = have.end() - l.end()
			}
			left = append(left, behind)
		}
	}
	if s.locks.of == nil {
		s.locks.of = map[uint64][]Lock{}
	}
	s.locks.of[file] = left
}

func (s *Server) take(file uint64, l Lock) {
	s.giveBack(file, l)
	s.locks.of[file] = append(s.locks.of[file], l)
	s.changed.Broadcast()
}

// Locks are those of a file, in the order of their bytes.
func (s *Server) Locks(name string) []Lock {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	locks := slices.Clone(s.locks.of[s.mustFind(name).id])
	slices.SortStableFunc(locks, func(a, b Lock) int { return int(int64(a.Offset) - int64(b.Offset)) })
	return locks
}

// PutLock has somebody else lock a file, whatever is in his way.
func (s *Server) PutLock(name string, l Lock) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(s.mustFind(name).id, l)
}

// GiveLockBack has somebody else give one back.
func (s *Server) GiveLockBack(name string, l Lock) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(s.mustFind(name).id, l)
	s.changed.Broadcast()
}

// DropLocks has the server forget the locks of a file, as an administrator may, or a restart.
func (s *Server) DropLocks(name string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.locks.of, s.mustFind(name).id)
}

// SetGrace begins or ends a time in which only locks are given that are reclaimed.
func (s *Server) SetGrace(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks.grace = on
}

// AwaitLocks waits until a file has so many locks.
func (s *Server) AwaitLocks(name string, n int) {
	s.t.Helper()
	s.await("so many locks", func() bool { return len(s.locks.of[s.mustFind(name).id]) == n })
}
