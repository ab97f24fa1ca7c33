package nfs

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// soft has a short timeout, and a second connection for what goes on meanwhile.
func soft(o *Options) { o.Timeout, o.Connections = 100*time.Millisecond, 2 }

// timesOut requires that something does.
func (r *rig) timesOut(fn func(t *blockcore.Task) error) {
	r.t.Helper()
	require.ErrorIs(r.t, r.do(fn), syscall.ETIMEDOUT)
}

// until does something again and again until it succeeds.
func (r *rig) until(fn func(t *blockcore.Task) error) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.do(fn) == nil }, patienceMax, time.Millisecond)
}

func (r *rig) flushing(t *blockcore.Task) error { return r.file.Flush(t) }

// Goal: a WRITE that has timed out and that the server executes long after does not undo what was written to its place since: who wants to write there waits, as long as his own timeout.
// Method: it is held at the server; the next write to that place times out, one elsewhere does not; when the server goes on the next one is what remains, on stable storage too, with a loss
// in between or not.
func TestTimedOutWriteUndoesNothing(t *testing.T) {
	for _, flags := range []blockcore.WriteFlags{0, blockcore.WriteFUA} {
		for _, loss := range []bool{false, true} {
			r := newRig(t, nfstest.Options{}, soft)
			hold := make(chan struct{})
			r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Before: func() { <-hold }}})
			old, fresh := random(1, 9000), random(2, 9000)
			r.timesOut(r.writing(5000, old, flags))
			r.timesOut(r.writing(4000, fresh, flags))
			r.write(100000, fresh, 0)
			require.Equal(t, 2, r.server.Calls(nfstest.Write))
			close(hold)
			r.until(r.writing(4000, fresh, flags))
			if loss {
				r.server.LoseUnstable(nfstest.LoseAll)
			}
			want := append(bytes.Clone(fresh), old[len(fresh)-1000:]...)
			r.check(4000, want)
			r.until(r.flushing)
			require.Equal(t, want, r.server.Stable(diskPath)[4000:][:len(want)])
		}
	}
}

// Goal: a COMMIT that has timed out and fails late, with which the server drops what was written meanwhile and tells nobody else, is known to the next FLUSH. Method: it is held at the server
// while more is written; the next FLUSH waits for it, and stores all when its answer, an error or none, has come.
func TestTimedOutCommitIsNotForgotten(t *testing.T) {
	for name, fault := range map[string]nfstest.Fault{"error": {Status: nfstest.NoSpc}, "lost answer": {Drop: nfstest.AfterExecuting}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nfstest.Options{}, soft)
			hold := make(chan struct{})
			fault.Before = func() { <-hold; r.server.Forget(nfstest.LoseAll) }
			r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: fault})
			before, meanwhile := random(3, 50000), random(4, 50000)
			r.write(0, before, 0)
			r.timesOut(r.flushing)
			r.write(60000, meanwhile, 0)
			r.timesOut(r.flushing)
			require.Equal(t, 2, r.server.Calls(nfstest.Commit)) // one was for the opening
			close(hold)
			r.until(r.flushing)
			stable := r.server.Stable(diskPath)
			require.Equal(t, before, stable[:len(before)])
			require.Equal(t, meanwhile, stable[60000:][:len(meanwhile)])
		})
	}
}

// Goal: a COMMIT that has timed out and succeeds late is worth as much as any: what it covers is not written again. Method: it is held at the server; afterwards a FLUSH needs no WRITE.
func TestTimedOutCommitThatSucceeds(t *testing.T) {
	r := newRig(t, nfstest.Options{}, soft)
	hold := make(chan struct{})
	r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{Before: func() { <-hold }}})
	r.write(0, random(5, 50000), 0)
	r.timesOut(r.flushing)
	writes := r.server.Calls(nfstest.Write)
	close(hold)
	r.until(r.flushing)
	require.Equal(t, writes, r.server.Calls(nfstest.Write))
	require.Equal(t, 2, r.server.Calls(nfstest.Commit)) // one was for the opening
}

// Goal: a file that is made shorter late, after the resize has timed out, loses nothing that was written since, and reads as zeroes where it was cut off. Method: the SETATTR is held at the
// server; a write times out meanwhile, wherever it goes, and is there when it has succeeded.
func TestTimedOutResize(t *testing.T) {
	r := newRig(t, nfstest.Options{}, soft)
	r.write(0, random(6, diskBytes), blockcore.WriteFUA)
	hold := make(chan struct{})
	r.server.Inject(nfstest.Rule{Proc: nfstest.SetAttr, Fault: nfstest.Fault{Before: func() { <-hold }}})
	r.timesOut(func(t *blockcore.Task) error { return r.file.Resize(t, 65536) })
	fresh := random(7, 5000)
	r.timesOut(r.writing(200000, fresh, 0))
	close(hold)
	r.until(r.writing(200000, fresh, 0))
	r.until(r.flushing)
	want := make([]byte, diskBytes)
	copy(want, random(6, diskBytes)[:65536])
	copy(want[200000:], fresh)
	r.check(0, want)
	require.Equal(t, want[:200000+len(fresh)], r.server.Stable(diskPath))
}

// Goal: however many requests time out, the memory that they leave behind is bounded, and requests go on timing out. Method: a silent server and stable writes, some at a time, far beyond the
// bound; later all is as it should be.
func TestCopiesOfTimedOutWritesAreBounded(t *testing.T) {
	const writeBytes, atOnce = 1 << 20, 16
	r := newRig(t, nfstest.Options{WriteBytesMax: writeBytes}, nil)
	r.close()
	r.server.Put(diskPath, nfstest.File{SizeBytes: 128 << 20})
	r.open(soft)
	r.server.Silence()
	p := random(8, writeBytes)
	for round := range int64(2 * limboBytesMax / writeBytes / atOnce) {
		var done []chan error
		for at := range int64(atOnce) {
			done = append(done, r.begin(r.writing((round*atOnce+at)*writeBytes, p, blockcore.WriteFUA)))
		}
		for _, d := range done {
			require.ErrorIs(t, r.wait(d), syscall.ETIMEDOUT)
		}
	}
	bytesThen := int64(0)
	require.NoError(t, r.do(func(*blockcore.Task) error { bytesThen = r.file.limboBytes; return nil }))
	require.LessOrEqual(t, bytesThen, int64(limboBytesMax+atOnce*writeBytes))
	r.server.Speak()
	r.until(r.writing(0, p[:4096], 0))
	r.until(func(*blockcore.Task) error {
		if r.file.limbos > 0 || r.file.limboBytes > 0 || r.file.reserved > 0 {
			return syscall.EBUSY
		}
		return nil
	})
}
