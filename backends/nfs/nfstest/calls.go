package nfstest

import (
	"fmt"
	"time"
)

// Call is one call as the log keeps it. What a procedure does not have is zero.
type Call struct {
	Conn      int // the number of the connection, counted from one
	XID       uint32
	Proc      Proc
	UID, GID  uint32
	File      uint64 // the number of the file or directory that the handle is of
	Name      string // of what is looked up, made, removed; the path of MNT
	Offset    uint64 // in bytes
	Count     uint32 // in bytes, as asked
	Stability Stability
	Reclaim   bool // of a lock that was held before the server's restart
	At        time.Time
}

// String is a line of a log.
func (c Call) String() string {
	return fmt.Sprintf("conn %d xid %08x %s file %d %q %d+%d stable %d", c.Conn, c.XID, c.Proc, c.File, c.Name, c.Offset, c.Count, c.Stability)
}

// admit counts and logs a call, and finds its fault. The arguments are read again when it is executed.
func (s *Server) admit(c *conn, h header, args *reader) (Call, Fault) {
	call := Call{Conn: c.number, XID: h.xid, Proc: procs[procNumber{h.prog, h.proc}], UID: h.who.uid, GID: h.who.gid, At: time.Now()}
	look := *args
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.prog == c.prog {
		call.read(s, &look)
	}
	s.counts[call.Proc]++
	if len(s.log) == logMax {
		s.log = append(s.log[:0], s.log[logMax/2:]...)
	}
	s.log = append(s.log, call)
	s.changed.Broadcast()
	return call, s.fault(call)
}

// read takes what the log is interested in from the arguments.
func (c *Call) read(s *Server, args *reader) {
	switch c.Proc {
	case Null, MountNull, PortmapNull, LockNull, Exports, UmntAll, GetPort, "":
	case LockTest, LockLock, LockNMLock, LockUnlock:
		c.readLock(s, args)
	case Mnt, Umnt:
		c.Name = args.text(pathBytesMax)
	default:
		c.File = s.idOf(args.opaque(handleBytesMax))
		c.readMore(args)
	}
}

func (c *Call) readMore(args *reader) {
	switch c.Proc {
	case Lookup, Create, MkDir, Remove, RmDir, Rename:
		c.Name = args.text(nameBytesMax)
	case Read, Write, Commit:
		c.Offset, c.Count = args.u64(), args.u32()
	}
	if c.Proc == Write {
		c.Stability = Stability(args.u32())
	}
}

// Calls is how many calls of a procedure there have been, of all procedures for AnyProc.
func (s *Server) Calls(proc Proc) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls(proc)
}

func (s *Server) calls(proc Proc) int {
	if proc != AnyProc {
		return s.counts[proc]
	}
	sum := 0
	for _, n := range s.counts {
		sum += n
	}
	return sum
}

// Log is the last calls, 50,000 of them at least, in the order in which they came.
func (s *Server) Log() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Call(nil), s.log...)
}

// AwaitCalls waits until there have been n calls of a procedure.
func (s *Server) AwaitCalls(proc Proc, n int) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d calls of %q", n, proc), func() bool { return s.calls(proc) >= n })
}

// AwaitConnections waits until there are exactly n connections.
func (s *Server) AwaitConnections(n int) {
	s.t.Helper()
	s.await(fmt.Sprintf("%d connections", n), func() bool { return len(s.conns) == n })
}

// await waits until something is so. The condition is asked with mu held.
func (s *Server) await(what string, so func() bool) {
	s.t.Helper()
	late := false
	timer := time.AfterFunc(hangSeconds*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.changed.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !so() && !late {
		s.changed.Wait()
	}
	if !so() {
		s.t.Fatalf("nfstest: no %s within %d s; calls: %v", what, hangSeconds, s.counts)
	}
}
