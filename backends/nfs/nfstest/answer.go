package nfstest

// answer executes a call. Nothing is the answer of a server that is down, or went down while the call came.
func (s *Server) answer(c *conn, h header, call Call, args *reader, f Fault) []byte {
	switch {
	case f.Deny != 0:
		return denied(h.xid, f.Deny)
	case h.rpc != rpcVersion:
		return denied(h.xid, RPCMismatch)
	case f.Accept == ProgMismatch:
		return accepted(h.xid, ProgMismatch, mismatch(h.vers+1))
	case f.Accept != 0:
		return accepted(h.xid, f.Accept, nil)
	case h.prog != c.prog:
		return accepted(h.xid, ProgUnavail, nil)
	case h.vers != versions[h.prog]:
		return accepted(h.xid, ProgMismatch, mismatch(versions[h.prog]))
	case handlers[call.Proc] == nil:
		return accepted(h.xid, ProcUnavail, nil)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.up || s.closed || c.life != s.crashes || c.isClosed() && !s.options.LateExecution {
		return nil
	}
	x := exchange{server: s, args: args, who: s.squashed(h.who), call: call, fault: f}
	stat := x.execute()
	return accepted(h.xid, stat, x.reply.bytes)
}

var versions = map[uint32]uint32{progPortmap: versPortmap, progMount: versMount, progNFS: versNFS, progNLM: versNLM}

// handler executes a procedure and writes its results. It writes the status first, with begin or fail.
type handler func(*exchange)

var handlers = map[Proc]handler{
	PortmapNull: func(*exchange) {}, MountNull: func(*exchange) {}, Null: func(*exchange) {},
	GetPort: getPort, Mnt: mnt, Umnt: umnt, UmntAll: func(*exchange) {}, Exports: listExports,
	GetAttr: getAttr, SetAttr: setAttr, Access: access, Lookup: lookup,
	ReadLink: readLink, Read: read, Write: write, Commit: commit,
	Create: create, MkDir: mkDir, Remove: remove, RmDir: rmDir, Rename: rename,
	ReadDir: readDir, ReadDirPlus: readDirPlus,
	LockNull: func(*exchange) {}, LockTest: testLock, LockLock: lock, LockNMLock: lock, LockUnlock: unlock,
	FSStat: fsStat, FSInfo: fsInfo, PathConf: pathConf,
}

// exchange is a call while it is executed. Server.mu is held.
type exchange struct {
	// Guarded by Server.mu.
	server  *Server
	args    *reader
	who     credentials
	call    Call
	fault   Fault
	reply   writer
	refused bool // a status other than OK is written
	garbage bool // the arguments do not fit
}

// execute runs the handler, or only reads the status that the rule wants.
func (x *exchange) execute() AcceptStat {
	if x.fault.Status != OK {
		x.fail(x.fault.Status)
		return 0
	}
	handlers[x.call.Proc](x)
	if x.garbage {
		x.reply = writer{}
		x.server.t.Errorf("nfstest: arguments that do not fit their types: %v", x.call)
		return GarbageArgs
	}
	if x.fault.StatusAfter != OK {
		x.reply = writer{}
		x.fail(x.fault.StatusAfter)
	}
	return 0
}

// read is true if the arguments were read whole.
func (x *exchange) read() bool {
	x.garbage = x.args.end() != nil
	return !x.garbage
}

// begin writes the status of success.
func (x *exchange) begin() { x.reply.u32(uint32(OK)) }

// fail writes a status and what the procedure's results are then: attributes that are left out.
func (x *exchange) fail(status Status) {
	x.refused = true
	switch x.call.Proc {
	case LockTest, LockLock, LockNMLock, LockUnlock:
		x.failLock(status)
		return
	}
	x.reply.u32(uint32(status))
	switch x.call.Proc {
	case GetAttr, Mnt:
	case SetAttr, Write, Create, MkDir, Remove, RmDir, Commit:
		x.reply.u32(0, 0) // wcc_data
	case Rename:
		x.reply.u32(0, 0, 0, 0)
	default:
		x.reply.u32(0) // post_op_attr
	}
}

func (s *Server) squashed(who credentials) credentials {
	if s.options.Squash && who.uid == 0 {
		return credentials{uid: nobody, gid: nobody}
	}
	return who
}
