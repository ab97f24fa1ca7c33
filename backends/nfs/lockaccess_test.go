package nfs

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// reopen has the file opened for reading, or for writing, and the change stand, or not.
func (r *rig) reopen(readOnly, stands bool) error {
	r.t.Helper()
	return r.do(func(t *blockcore.Task) error {
		commit, abort, err := r.file.PrepareReopen(t, Changes{ReadOnly: readOnly})
		switch {
		case err != nil:
		case stands:
			commit(t)
		default:
			abort(t)
		}
		return err
	})
}

// has waits until the server has just so many locks.
func (r *rig) has(locks []nfstest.Lock) {
	r.t.Helper()
	r.server.AwaitLocks(diskPath, len(locks))
	require.Equal(r.t, locks, r.server.Locks(diskPath))
}

// Goal: a file that is only read has a reader's locks and has nothing left to write, and a writer's again before it is written to; a change that does not stand leaves what there was; and after a
// restart of the server there is what there was before it. Method: reopens there and back, with one who is in the way of a writer, and a crash.
func TestLocksFollowAccess(t *testing.T) {
	r := newRig(t, nfstest.Options{Locks: nfstest.NamedLocks}, nil)
	writer := r.server.Locks(diskPath)
	r.close()
	r.open(func(o *Options) { o.ReadOnly = true })
	count := len(r.server.Locks(diskPath))
	r.close()
	require.Less(t, count, len(writer))
	r.open(nil)
	writer = r.server.Locks(diskPath)
	var reader []nfstest.Lock
	for _, l := range writer {
		if l.Offset != imagelock.First+1 {
			reader = append(reader, l)
		}
	}
	require.Len(t, reader, count)

	want := random(1, 9000)
	r.write(0, want, 0)
	require.NoError(t, r.reopen(true, false))
	r.has(writer)
	require.NoError(t, r.reopen(true, true))
	r.has(reader)
	require.Equal(t, want, r.server.Stable(diskPath)[:len(want)])
	r.restart(nil)
	require.Eventually(t, func() bool {
		return r.do(r.reading(100000, make([]byte, 512))) == nil && len(r.server.Locks(diskPath)) == count
	}, patienceMax, patienceMax/1000)
	r.has(reader)

	require.NoError(t, r.reopen(false, false))
	r.has(reader)
	r.server.PutLock(diskPath, nfstest.Lock{Host: "other", Number: 7, Offset: imagelock.First + 101, LengthBytes: 1})
	require.True(t, isLocked(r.reopen(false, true)))
	r.server.AwaitLocks(diskPath, count+1)
	r.server.DropLocks(diskPath)
	require.NoError(t, r.reopen(false, true))
	r.file.nlm.lookSoon()
	r.has(writer)
	for range 10 {
		require.NoError(t, r.reopen(true, true))
		require.NoError(t, r.reopen(false, true))
	}
	r.has(writer)
	r.write(0, random(2, 9000), blockcore.WriteFUA)
}

// Goal: a file that becomes read-only has nothing left to write, nor does what was given up leave anything behind. Method: a WRITE that is held at the server is given up; the reopen
// waits for its end, and then what it has brought is on stable storage and no longer held.
func TestReadOnlyWaitsForWhatWasGivenUp(t *testing.T) {
	h := newHouse(t, nfstest.Options{Locks: nfstest.NamedLocks}, nil)
	hold := make(chan struct{})
	h.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Before: func() { <-hold }}})
	given := random(1, 9000)
	done := h.writes("leaves", 5000, given, 0)
	h.server.AwaitCalls(nfstest.Write, 1)
	h.cancel("leaves")
	h.cancelled(done)
	reopened := h.begin(func(t *blockcore.Task) error {
		commit, _, err := h.disk.PrepareReopen(t, Changes{ReadOnly: true})
		if err == nil {
			commit(t)
		}
		return err
	})
	h.look(func() bool { return true }) // it waits now
	close(hold)
	require.NoError(t, h.wait(reopened))
	h.atRest()
	require.Zero(t, h.disk.held.pages.count)
	require.Equal(t, given, h.server.Stable(diskPath)[5000:][:len(given)])
}
