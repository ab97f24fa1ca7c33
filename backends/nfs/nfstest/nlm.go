package nfstest

// The statuses of the lock manager, nlm4_stats of RFC 1813 6.3.
const (
	LockGranted  Status = 0
	LockDenied   Status = 1
	LockNoLocks  Status = 2
	LockGrace    Status = 4
	LockStaleFH  Status = 7
	LockFailed   Status = 9
	lockTextsMax        = 1024 // XNFS 8, LM_MAXSTRLEN and MAXNETOBJ_SZ
)

// lockArgs are what TEST, LOCK and UNLOCK are about.
type lockArgs struct {
	cookie []byte
	handle []byte
	lock   Lock
}

// readFlags are bools between the cookie and the lock: block and exclusive of LOCK, exclusive of TEST.
func (x *exchange) lockArgs(readFlags func(l *Lock)) lockArgs {
	a := lockArgs{cookie: x.args.opaque(lockTextsMax)}
	readFlags(&a.lock)
	a.lock.Host = x.args.text(lockTextsMax)
	a.handle = x.args.opaque(handleBytesMax)
	a.lock.Owner = x.args.text(lockTextsMax)
	a.lock.Number = x.args.u32()
	a.lock.Offset, a.lock.LengthBytes = x.args.u64(), x.args.u64()
	return a
}

// lockedFile is the file; nil if the answer is written already.
func (x *exchange) lockedFile(a lockArgs) *inode {
	x.reply.opaque(a.cookie)
	f := x.server.files[x.server.idOf(a.handle)]
	if f == nil || f.gone {
		x.reply.u32(uint32(LockStaleFH))
		return nil
	}
	return f
}

func testLock(x *exchange) {
	a := x.lockArgs(func(l *Lock) { l.Exclusive = x.args.flag() })
	if !x.read() {
		return
	}
	f := x.lockedFile(a)
	if f == nil {
		return
	}
	if x.server.locks.grace {
		x.reply.u32(uint32(LockGrace))
		return
	}
	holder, is := x.server.inTheWay(f.id, a.lock)
	if !is {
		x.reply.u32(uint32(LockGranted))
		return
	}
	x.reply.u32(uint32(LockDenied))
	x.holder(holder)
}

func (x *exchange) holder(l Lock) {
	if x.server.options.Locks == LinuxLocks {
		l.Owner = ""
	}
	x.reply.flag(l.Exclusive)
	x.reply.u32(l.Number)
	x.reply.text(l.Owner)
	x.reply.u64(l.Offset, l.LengthBytes)
}

// lock never waits: who is told that he may wait is told NLM4_DENIED all the same.
func lock(x *exchange) {
	a := x.lockArgs(func(l *Lock) {
		x.args.flag()
		l.Exclusive = x.args.flag()
	})
	reclaim := x.args.flag()
	x.args.u32() // the state of a status monitor
	if !x.read() {
		return
	}
	f := x.lockedFile(a)
	if f == nil {
		return
	}
	status := LockGranted
	if _, denied := x.server.inTheWay(f.id, a.lock); denied {
		status = LockDenied
	}
	if x.server.locks.grace != reclaim {
		status = LockGrace
	}
	if status == LockGranted {
		x.server.take(f.id, a.lock)
	}
	x.reply.u32(uint32(status))
}

func unlock(x *exchange) {
	a := x.lockArgs(func(*Lock) {})
	if !x.read() {
		return
	}
	if f := x.lockedFile(a); f != nil {
		x.server.giveBack(f.id, a.lock)
		x.server.changed.Broadcast()
		x.reply.u32(uint32(LockGranted))
	}
}

// failLock is a status that a rule wants.
func (x *exchange) failLock(status Status) {
	x.reply.opaque(nil)
	x.reply.u32(uint32(status))
	if x.call.Proc == LockTest && status == LockDenied {
		x.holder(Lock{})
	}
}

// readLock takes what the log is interested in from the arguments.
func (c *Call) readLock(s *Server, args *reader) {
	args.opaque(lockTextsMax)
	switch c.Proc {
	case LockTest:
		args.flag()
	case LockLock, LockNMLock:
		args.flag()
		args.flag()
	}
	c.Name = args.text(lockTextsMax)
	c.File = s.idOf(args.opaque(handleBytesMax))
	args.opaque(lockTextsMax)
	args.u32()
	c.Offset, c.Count = args.u64(), uint32(args.u64())
	c.Reclaim = c.Proc != LockTest && c.Proc != LockUnlock && args.flag()
}
