package nfs

import (
	"slices"
	"syscall"
	"time"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/backends/nfs/wire"
	"nbd-dataplane/internal/simkit"
)

// up reports whether the server runs.
func (w *simWorld) up() bool { return w.Now() >= w.down }

// plainFault is that of a call to which nothing happens.
func (w *simWorld) plainFault() nfstest.Fault {
	if w.Now() < w.full {
		return nfstest.Fault{Status: nfstest.NoSpc}
	}
	return nfstest.Fault{}
}

// execute executes a call, and something may happen to it.
func (w *simWorld) execute(l *simLink, c *simCall) {
	l.calls = slices.DeleteFunc(slices.Clone(l.calls), func(other *simCall) bool { return other == c })
	proc := wire.Proc(c.proc())
	w.checkLookedAfter(c)
	f, what := nfstest.Fault{}, ""
	switch {
	case w.passOver > 0:
		w.passOver--
		return
	case w.Now() < w.full && (proc == wire.ProcWrite || proc == wire.ProcCommit || proc == wire.ProcSetattr):
		f, what = nfstest.Fault{Status: nfstest.NoSpc}, "full"
		w.injected(syscall.ENOSPC)
	case w.putOff, w.Now() < w.busy && w.rng.IntN(4) > 0:
		f, what = nfstest.Fault{Status: nfstest.Jukebox}, "jukebox"
	case w.bads > 0 && (w.rng.IntN(1000) < w.faulty || w.faulty > 0 && w.inLimbo(c) && w.rng.IntN(4) == 0):
		w.executeBadly(l, c, proc)
		return
	}
	w.Log("link %d: execute %08x proc %d %s", l.id, c.xid(), proc, what)
	w.reply(l, w.server.Execute(c.record, f), false)
}

// checkLookedAfter looks whether the driver still waits for a call that changes something, whoever has given it up.
func (w *simWorld) checkLookedAfter(c *simCall) {
	if w.file.calls.byXID(c.xid()) == nil && changes(wire.Proc(c.proc())) && !w.closing {
		w.Fail("%v %08x is executed and nobody looks after it", wire.Proc(c.proc()), c.xid())
	}
	if changes(wire.Proc(c.proc())) {
		w.checkMine(wire.Proc(c.proc()).String() + " is executed")
	}
}

// inLimbo reports whether the request of a call was given up.
func (w *simWorld) inLimbo(c *simCall) bool {
	k := w.file.calls.byXID(c.xid())
	return k != nil && k.group.limbo
}

// reply sends a reply some time later.
func (w *simWorld) reply(l *simLink, bytes []byte, last bool) {
	if bytes == nil || l.fd < 0 {
		return
	}
	l.replies = append(l.replies, &simReply{bytes: bytes, due: w.soon(), last: last})
}

// simBad is what may happen to one call.
type simBad struct {
	name string
	do   func(w *simWorld, l *simLink, c *simCall, proc wire.Proc)
}

// executeBadly has one call meet something.
func (w *simWorld) executeBadly(l *simLink, c *simCall, proc wire.Proc) {
	bad := simBads[w.rng.IntN(len(simBads))]
	if proc == wire.ProcCommit && w.rng.IntN(3) == 0 {
		bad = oneOf(w.rng, simLossTold, simLossUntold) // what a COMMIT may do is of more interest than that of others
	}
	w.Log("link %d: execute %08x proc %d: %s", l.id, c.xid(), proc, bad.name)
	w.Count(bad.name)
	w.bads--
	bad.do(w, l, c, proc)
}

// of makes something of a fault of the scripted server.
func of(fault func(w *simWorld) nfstest.Fault) func(*simWorld, *simLink, *simCall, wire.Proc) {
	return func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		w.reply(l, w.server.Execute(c.record, fault(w)), false)
	}
}

// simLossTold is data that the server gives up, of which it tells once.
var simLossTold = simBad{"data lost and told by an error", func(w *simWorld, l *simLink, c *simCall, proc wire.Proc) {
	if proc != wire.ProcCommit {
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{}), false)
		return
	}
	w.model.losses++
	w.server.Forget(w.loss())
	e := simErrors[w.rng.IntN(len(simErrors))]
	w.injected(e.errno)
	w.reply(l, w.server.Execute(c.record, nfstest.Fault{Status: e.status}), false)
}}

// simLossUntold is the same, with an answer that gets lost, and sometimes nobody can ask again for a while, so that it is given up meanwhile.
var simLossUntold = simBad{"data lost and told to nobody", func(w *simWorld, l *simLink, _ *simCall, _ wire.Proc) {
	w.model.losses++
	w.server.Forget(w.loss())
	l.shut()
	if w.rng.IntN(2) == 0 {
		w.refusing = max(w.refusing, w.Now()+w.someTime())
	}
}}

// simBads are all of them.
var simBads = []simBad{
	{"jukebox", of(func(*simWorld) nfstest.Fault { return nfstest.Fault{Status: nfstest.Jukebox} })},
	{"jukebox, twice", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		reply := w.server.Execute(c.record, nfstest.Fault{Status: nfstest.Jukebox})
		w.reply(l, reply, false)
		w.reply(l, slices.Clone(reply), false)
	}},
	{"jukebox afterwards", of(func(*simWorld) nfstest.Fault { return nfstest.Fault{StatusAfter: nfstest.Jukebox} })},
	{"short", of(func(w *simWorld) nfstest.Fault { return nfstest.Fault{Short: simkit.CellBytes * (1 + w.rng.IntN(40))} })},
	{"shorter", of(func(w *simWorld) nfstest.Fault { return nfstest.Fault{Short: simkit.CellBytes} })},
	{"nothing", func(w *simWorld, l *simLink, c *simCall, proc wire.Proc) {
		if proc == wire.ProcRead {
			w.injected(syscall.EIO)
		}
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{ShortToNothing: true}), false)
	}},
	{"twice", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		reply := w.server.Execute(c.record, nfstest.Fault{})
		w.reply(l, reply, false)
		w.reply(l, slices.Clone(reply), false)
	}},
	{"to nobody", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		reply := w.server.Execute(c.record, nfstest.Fault{})
		stray := slices.Clone(reply)
		if len(stray) > 8 {
			stray[4+w.rng.IntN(3)] ^= byte(1 + w.rng.IntN(255))
		}
		w.reply(l, reply, false)
		w.reply(l, stray, false)
	}},
	{"lost call", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) { l.shut() }},
	{"lost reply", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		w.server.Execute(c.record, nfstest.Fault{})
		l.shut()
	}},
	{"no reply", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) { w.server.Execute(c.record, nfstest.Fault{}) }},
	{"call passed over", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {}},
	{"half a reply", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		reply := w.server.Execute(c.record, nfstest.Fault{})
		w.reply(l, reply[:max(1, w.rng.IntN(len(reply)))], true)
	}},
	{"fragments", of(func(w *simWorld) nfstest.Fault { return nfstest.Fault{FragmentBytes: 1 + w.rng.IntN(60)} })},
	{"cut", of(func(w *simWorld) nfstest.Fault { return nfstest.Fault{CutTo: 1 + w.rng.IntN(60)} })},
	{"absurd length", of(func(*simWorld) nfstest.Fault { return nfstest.Fault{Mangle: nfstest.AbsurdLength} })},
	{"garbage", of(func(w *simWorld) nfstest.Fault { return nfstest.Fault{Mangle: nfstest.Garbage(w.rng.Uint64())} })},
	{"garbage with the right id", of(func(w *simWorld) nfstest.Fault {
		return nfstest.Fault{Mangle: nfstest.GarbageAfterXID(w.rng.Uint64())}
	})},
	{"more promised than sent", of(func(w *simWorld) nfstest.Fault {
		return nfstest.Fault{Mangle: nfstest.Overpromise(1 + w.rng.IntN(200))}
	})},
	{"unstable whatever was asked", func(w *simWorld, l *simLink, c *simCall, proc wire.Proc) {
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{ClaimUnstable: proc == wire.ProcWrite}), false)
	}},
	{"stable though nobody asked", of(func(*simWorld) nfstest.Fault { return nfstest.Fault{Stable: true} })},
	{"verifier of another run", of(func(w *simWorld) nfstest.Fault { return nfstest.Fault{Verifier: w.rng.Uint64()} })},
	{"error", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		e := simErrors[w.rng.IntN(len(simErrors))]
		w.injected(e.errno)
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{Status: e.status}), false)
	}},
	{"error afterwards", func(w *simWorld, l *simLink, c *simCall, proc wire.Proc) {
		if proc == wire.ProcSetattr {
			w.reply(l, w.server.Execute(c.record, nfstest.Fault{}), false)
			return
		}
		e := simErrors[w.rng.IntN(len(simErrors))]
		w.injected(e.errno)
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{StatusAfter: e.status}), false)
	}},
	simLossTold,
	{"refused by RPC", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		w.injected(syscall.EREMOTEIO)
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{Accept: nfstest.SystemErr}), false)
	}},
	{"crash before", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) { w.crash() }},
	{"crash after", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		w.server.Execute(c.record, nfstest.Fault{})
		w.crash()
	}},
	{"data lost before", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		w.loseUnstable()
		w.reply(l, w.server.Execute(c.record, nfstest.Fault{}), false)
	}},
	{"data lost after", func(w *simWorld, l *simLink, c *simCall, _ wire.Proc) {
		reply := w.server.Execute(c.record, nfstest.Fault{})
		w.loseUnstable()
		w.reply(l, reply, false)
	}},
}

// simErrors are what a server may say, and what the client is told.
var simErrors = []struct {
	status nfstest.Status
	errno  syscall.Errno
}{{nfstest.IO, syscall.EIO}, {nfstest.NoSpc, syscall.ENOSPC}, {nfstest.DQuot, syscall.EDQUOT}, {nfstest.ServerFault, syscall.EREMOTEIO}}

func (w *simWorld) loss() nfstest.Loss { return nfstest.Loss(w.rng.IntN(2)) }

// crash is the power going: connections break, what is not stable is lost, and after a while the server is there again.
func (w *simWorld) crash() {
	w.Log("server: crash")
	for _, l := range slices.Clone(w.links) {
		l.calls = nil
		l.shut()
	}
	w.model.losses++
	w.server.Crash(w.loss())
	w.server.Restart()
	w.restarts++
	w.down = w.Now() + w.someTime()
	w.crashedLocks()
	w.checkStable("after a crash")
}

// loseUnstable is a crash that no connection notices.
func (w *simWorld) loseUnstable() {
	w.Log("server: unstable data is lost")
	w.model.losses++
	w.restarts++
	w.server.LoseUnstable(w.loss())
	w.checkStable("after a loss")
}

// simTroubles are what happens to the server and to the network by themselves.
var simTroubles = []struct {
	name string
	do   func(w *simWorld)
}{
	{"a connection breaks", func(w *simWorld) {
		if len(w.links) > 0 {
			w.links[w.rng.IntN(len(w.links))].shut()
		}
	}},
	{"all connections break", func(w *simWorld) {
		for _, l := range slices.Clone(w.links) {
			l.shut()
		}
	}},
	{"power cut", (*simWorld).crash},
	{"data is lost", (*simWorld).loseUnstable},
	{"new verifier", func(w *simWorld) { w.restarts++; w.server.ChangeVerifier() }},
	{"silence", func(w *simWorld) { w.silent = w.Now() + w.someTime() }},
	{"a connection is silent", func(w *simWorld) {
		if len(w.links) > 0 {
			w.links[w.rng.IntN(len(w.links))].muted = w.Now() + w.someTime()
		}
	}},
	{"a connection is dead", func(w *simWorld) {
		if len(w.links) > 0 {
			w.links[w.rng.IntN(len(w.links))].muted = simkit.Never
		}
	}},
	{"connections are refused", func(w *simWorld) { w.refusing = w.Now() + w.someTime() }},
	{"the file system is full", func(w *simWorld) { w.full = w.Now() + w.someTime() }},
	{"busy", func(w *simWorld) { w.busy = w.Now() + w.someTime() }},
	{"locks are dropped", func(w *simWorld) {
		if w.opening != nil && !w.foreign {
			w.server.DropLocks(simFile)
			w.visitorGone()
			w.dropped = true
		}
	}},
	{"written back", func(w *simWorld) { w.server.SyncAll() }},
}

// trouble makes some.
func (w *simWorld) trouble() {
	one := simTroubles[w.rng.IntN(len(simTroubles))]
	w.troubles--
	w.Log("trouble: %s", one.name)
	w.Count(one.name)
	one.do(w)
	w.next = w.Now() + time.Duration(w.rng.Int64N(int64(w.between)))
}

// heal ends all that lasts.
func (w *simWorld) heal() {
	w.Log("the server is well again")
	now := w.Now()
	w.down, w.silent, w.refusing, w.full, w.busy = now, now, now, now, now
	w.troubles, w.bads, w.slow = 0, 0, 0
	w.comes, w.grace, w.visitor.visits = 0, 0, 0
	if w.visitor.looking || w.visitor.guest {
		w.visitorLeaves()
	}
	w.server.SetGrace(false)
	for _, l := range w.links {
		if l.muted != simkit.Never {
			l.muted = now
		}
		for _, c := range l.calls {
			c.due = now
		}
		for _, r := range l.replies {
			r.due = now
		}
	}
}

// injected notes that somebody may see an error.
func (w *simWorld) injected(errno syscall.Errno) {
	w.errors = append(w.errors, simError{errno, w.Tick()})
}

// simError is an error that the server has sent.
type simError struct {
	errno syscall.Errno
	at    int64
}

// mayFail reports whether a request that has begun at begin may fail so.
func (w *simWorld) mayFail(errno syscall.Errno, begin int64) bool {
	if w.came && errno == syscall.EIO {
		return true // the lock is lost
	}
	return slices.ContainsFunc(w.errors, func(e simError) bool { return e.errno == errno && e.at >= begin })
}
