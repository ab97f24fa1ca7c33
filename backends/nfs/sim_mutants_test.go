package nfs

import (
	"testing"

	"nbd-dataplane/internal/simkit"
)

// simMutants are mistakes that the simulation has to find.
var simMutants = []struct{ mistake, file, old, new string }{
	{"a COMMIT covers what was written again since, whatever run of the server answers", "held.go", "\t\tcase g.begun > upTo:\n", "\t\tcase g.seq > upTo:\n"},
	{"an error leaves what was on its way", "reply.go", "\tif c.order <= f.doubted {", "\tif c.order == 0 {"},
	{"a page that is written over is owed to nobody", "held.go", "h.setStale(g, g.stale || g.verifier != verifier)", "h.setStale(g, false)"},
	{"the verifier of a COMMIT is not looked at", "held.go", "\t\tcase g.stale || g.verifier != verifier:\n\t\t\th.setStale", "\t\tcase g.stale:\n\t\t\th.setStale"},
	{"after an error of a COMMIT what was written is taken for stored", "settle.go", "\t\tf.doubt() // where", "\t\tif g.err == nil {\n\t\t\tf.doubt()\n\t\t} // where"},
	{"a page that several runs of the server have is taken for one's", "held.go", "\t\th.setStale(g, true) // no run of the server has all of it\n", ""},
	{"reads do not look into what is held", "io.go", "\tf.held.overlay(p, off)\n", ""},
	{"a read that a loss has overtaken is not repeated", "io.go", "if gone != f.held.gone {", "if gone > f.held.gone {"},
	{"a stable write takes the place of a lost one unseen", "held.go", "if g.stale || g.verifier != verifier {\n\t\t\t\th.gone++", "if g.data == nil {\n\t\t\t\th.gone++"},
	{"a stable write leaves older data held", "held.go", "\t\t\th.remove(buffers, g)\n\t\tdefault:\n\t\t\tg.each", "\t\tdefault:\n\t\t\tg.each"},
	{"writes to one place are under way at once", "cancel.go", "f.locks.AcquireOr(t, f, r, true)", "f.locks.AcquireOr(t, f, r, false)"},
	{"FUA takes the server's word for what it asked", "io.go", "\tif fua && unstable {", "\tif fua && unstable && r.Length < 0 {"},
	{"who comes during a COMMIT is served by it", "settle.go", "\t\t\t\treturn err\n\t\t\t}\n\t\t\tcontinue\n", "\t\t\t\treturn err\n\t\t\t}\n\t\t\treturn nil\n"},
	{"a short WRITE counts as a whole one", "reply.go", "\tif int(w.Bytes) == len(c.data) {", "\tif w.Bytes > 0 {"},
	{"a short READ counts as a whole one", "reply.go", "\tcase r.DataBytes == len(c.data):", "\tcase r.DataBytes > 0:"},
	{"transaction ids come again", "call.go", "\tx.count++\n", "\tx.count = 1\n"},
	{
		"a call that rests takes a reply", "receive.go", "k.conn != c || k.state == callResting {\n\t\t// It comes twice, or for a call that was given up.\n\t\tc.f.counters.strays.Add(1)\n\t\tc.stage = stageSkip\n\t\treturn nil\n\t}\n\tif k.state != callSent {",
		"k.conn != c {\n\t\t// It comes twice, or for a call that was given up.\n\t\tc.f.counters.strays.Add(1)\n\t\tc.stage = stageSkip\n\t\treturn nil\n\t}\n\tif k.state != callSent && k.state != callResting {",
	},
	{"calls are not repeated on the next connection", "conn.go", "\t\t\tk.state, k.tried, k.asked = callQueued, true, c.f.ctx.Now()\n", ""},
	{"half a reply stays behind when its connection is lost", "conn.go", "\tc.parser.reset()\n", ""},
	{"half a call stays behind when its connection is lost", "conn.go", "c.first, c.sent, c.blocked = c.out[:0], 0, 0, false", "c.first, c.blocked = c.out[:0], 0, false"},
	{"a call that was given up is sent", "cancel.go", "\t\t\tk.conn.forget(k)\n\t\t\tf.finish(k, why)", "\t\t\tf.finish(k, why)"},
	{"a connection that every call gives up is kept", "health.go", "\tif c.mute != 0 {\n", "\tif c.mute != 0 && c.fd < 0 {\n"},
	{"data behind the end is missed where there is none", "io.go", "min(off+int64(len(p)), f.firm)", "min(off+int64(len(p)), f.eof)"},
	{"a write that fails keeps its room", "io.go", "\t\tf.locks.Release(lock)\n\t\tf.giveRoom(pages)\n", "\t\tf.locks.Release(lock)\n\t\tif err == nil {\n\t\t\tf.giveRoom(pages)\n\t\t}\n"},
	{"an error of a COMMIT that nobody has heard does not count", "settle.go", "\tif g.err == nil && !g.repeated {", "\tif g.err == nil {"},
	{"what is written again may go over what is newer", "replay.go", "Length: runs[len(runs)-1].End() - first}", "Length: 0}"},
	{"what a page was written again with is lost", "replay.go", "\t\tp.each(0, pageBytes, func", "\t\tp.each(0, pageBytes-64, func"},
	{"a WRITE that is given up leaves its range", "cancel.go", "z.limbo, z.lock, z.pages, z.resizes, z.dataBytes = true, g.lock,", "z.limbo, z.lock, z.pages, z.resizes, z.dataBytes = true, nil,"},
	{"who waits for what was given up waits as long as it takes", "cancel.go", "now-since >= timeout ||", "now-since >= 1<<62 ||"},
	{"a call that was given up has its time still", "cancel.go", "bytes.Clone(k.data), z, 0", "bytes.Clone(k.data), z, k.deadline"},
	{"a WRITE whose time is over is forgotten", "cancel.go", "return changes(k.proc) && k.mayRun() }", "return changes(k.proc) && k.mayRun() && (k.proc != 7 || k.deadline == 0) }"},
	{"a COMMIT that is given up is forgotten", "cancel.go", "return changes(k.proc) && k.mayRun() }", "return changes(k.proc) && k.mayRun() && k.proc != 21 }"},
	{"a COMMIT that was given up is not waited for", "settle.go", "\t\tif !inLimbo {\n", "\t\tif f.committing = false; !inLimbo {\n"},
	{"nothing is learnt from a COMMIT that was given up", "cancel.go", "\t\tf.concluded(z)\n", ""},
	{"a COMMIT that was given up and repeated was heard", "cancel.go", "z.repeated = g.commits, g.upTo, g.repeated", "z.repeated = g.commits, g.upTo, false"},
	{"what is given up is sent from memory that others have", "cancel.go", "bytes.Clone(k.data), z, 0", "bytes.TrimPrefix(k.data, nil), z, 0"},
	{"a new length that comes late is not noticed", "reply.go", "\t\t\tf.sizedLate(c.size)\n", "\t\t\tf.eof = max(f.eof, c.size)\n"},
	{"what is cut off late has room for writes meanwhile", "resize.go", "\tg.lock = lock\n", "\tif lock != nil {\n\t\tf.locks.Release(lock)\n\t\tlock = nil\n\t}\n"},
	{"the last flush takes its time", "call.go", "\t\tf.closeBy = f.ctx.Now() + closeMax\n", "\t\tf.closeBy = f.ctx.Now() + 100*closeMax\n"},
	{"calls are sent before the locks are confirmed", "dial.go", "\t\tfd, err = f.confirmed(ctx, fd)\n", "\t\t_ = f\n"},
	{"locks are not taken again", "locks.go", "k.takeAll(h.set, true)", "k.takeAll(imagelock.Set{}, true)"},
	{"nobody looks who else has locks", "locks.go", "conflict, err := l.lookAgain(k, h.set)", "conflict, err := l.lookAgain(k, imagelock.Set{})"},
	{"the loss of a lock is forgotten", "locks.go", "\tl.lost.Store(lost)\n", ""},
	{"a time of grace is a refusal", "lockcall.go", "\t\tcase s == wire.LockDenied, s == wire.LockBlocked:", "\t\tcase s == wire.LockDenied, s == wire.LockBlocked, s == wire.LockGrace:"},
	{"locks stay when a file is closed", "locks.go", "if err := k.unlock(l.owner); err == nil ||", "if err := error(nil); err == nil ||"},
	{"what an opening that fails has locked stays", "locks.go", "\t\tk.clearAbandoned(o.LockNotes)\n", "\t\t_ = k\n"},
	{"any reply will do", "client.go", "\t\tcase h.XID != c.xid:", "\t\tcase h.XID == 0:"},
	{"a file that is closed keeps its data", "file.go", "\tf.held.dropAll(t.Buffers())\n", ""},
	{"a file becomes read-only with something left to write", "reopen.go", "\treturn f.settle(t, f.held.seq)\n", "\treturn nil\n"},
	{"a file becomes read-only while a WRITE that was given up is on its way", "reopen.go", "\tlock, err := f.awaitLimbo(t)\n\tif err != nil {\n\t\treturn err\n\t}\n\tf.locks.Release(lock)\n\tsince", "\tsince"},
	{"the timeout of a reopen is forgotten", "reopen.go", "\t\tf.timeout.Store(int64(o.Timeout))\n\t\tf.heedTimeout()\n", "\t\tf.heedTimeout()\n"},
	{"a file that is written to again has the locks of a reader", "reopen.go", "\t\treturn t.Block(func() error { return f.nlm.widen(false) })\n", "\t\treturn nil\n"},
	{"a reopen that does not stand leaves its locks", "reopen.go", "func(*blockcore.Task) { f.access(before) }", "func(*blockcore.Task) { _ = before }"},
	{"nobody looks who reads a file that is written to again", "lockaccess.go", "conflict, _, err = k.look(l.url, to)", "conflict, _, err = k.look(l.url, imagelock.Set{})"},
	{"what a reopen that fails has locked stays", "lockaccess.go", "\th.surplus = h.surplus.With(more)\n", ""},
	{"what is of no use any more stays locked", "lockaccess.go", "\tmore := h.set.Without(l.want)\n", "\tmore := imagelock.Set{}\n"},
	{"who looks and goes is taken for one who stays", "locks.go", "\tfor range lossTries {", "\tfor range 1 {"},
}

// Goal: the simulation would see if a rule of the driver were broken. Method: each mutant replaces a piece of it by an overlay of the go command, and the
// seeds must fail on it, by a check and not by a hang. Without -nfs.mutants only the pieces are looked for.
func TestSimulationFindsMutants(t *testing.T) {
	var list []simkit.Mutant
	for _, m := range simMutants {
		list = append(list, simkit.Mutant{Mistake: m.mistake, File: m.file, Old: m.old, New: m.new})
	}
	simFlags.TestMutants(t, ".", list, "-timeout=10m", "-run", "TestSimulation$", ".", "-nfs.seeds=12000")
}
