package nfs

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// foreign is QEMU, on another host, that writes.
var foreign = nfstest.Lock{Host: "other", Number: 7, Offset: 101, LengthBytes: 1}

// restart has the server restarted: all that is not stable is lost, and all locks.
func (r *rig) restart(meanwhile func()) {
	r.server.Crash(nfstest.LoseAll)
	if meanwhile != nil {
		meanwhile()
	}
	r.server.Restart()
}

// Goal: after a restart of the server the locks are reclaimed in its time of grace, before anything is written, and after it taken again. Method: a crash with a write in flight,
// with and without a time of grace; the order of calls is read from the server's log.
func TestLocksAreReclaimed(t *testing.T) {
	for name, grace := range map[string]bool{"grace": true, "no grace": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nfstest.Options{Locks: nfstest.NamedLocks, LockGrace: grace}, nil)
			before := r.server.Locks(diskPath)
			r.write(0, random(1, 4096), 0)
			r.restart(nil)
			calls := len(r.server.Log())
			r.write(4096, random(2, 4096), 0)
			require.NoError(t, r.flush())
			require.Equal(t, before, r.server.Locks(diskPath))
			require.Equal(t, random(1, 4096), r.server.Stable(diskPath)[:4096])
			reclaimed, wrote := 0, false
			for _, c := range r.server.Log()[calls:] {
				switch {
				case c.Proc == nfstest.Write:
					wrote = true
				case c.Proc == nfstest.LockNMLock && c.Reclaim:
					require.False(t, wrote, "it is written before the locks are there")
					reclaimed++
				}
			}
			require.Equal(t, len(before), reclaimed)
		})
	}
}

// Goal: when somebody else has the file after a restart of the server, nothing is written to it any more, and that is told: requests that waited and new ones fail with EIO, a FLUSH does not
// succeed, reads go on, no WRITE reaches the server. Method: a lock of QEMU's appears while the server is down.
func TestLocksAreLost(t *testing.T) {
	r := newRig(t, nfstest.Options{Locks: nfstest.LinuxLocks}, nil)
	r.write(0, random(1, 4096), blockcore.WriteFUA)
	r.write(4096, random(2, 4096), 0)
	writes, commits := r.server.Calls(nfstest.Write), r.server.Calls(nfstest.Commit)
	r.server.Crash(nfstest.LoseAll)
	r.server.PutLock(diskPath, foreign)
	waits := r.begin(r.writing(8192, random(3, 4096), 0))
	require.False(t, (<-r.health).OK)
	r.server.Restart()
	require.ErrorIs(t, r.wait(waits), syscall.EIO)
	var lost *LockLostError
	require.ErrorAs(t, r.do(r.writing(8192, random(3, 4096), 0)), &lost)
	require.ErrorAs(t, r.flush(), &lost)
	require.ErrorAs(t, r.do(func(t *blockcore.Task) error { return r.file.Resize(t, diskBytes*2) }), &lost)
	r.check(0, random(1, 4096))
	require.Equal(t, writes, r.server.Calls(nfstest.Write))
	require.Equal(t, commits, r.server.Calls(nfstest.Commit))
	require.Equal(t, []nfstest.Lock{foreign}, r.server.Locks(diskPath), "ours are in nobody's way")
	h := r.file.Health()
	require.False(t, h.OK)
	require.True(t, r.file.RefusesWrites())
	require.Contains(t, h.String(), `Failed to get shared "write" lock`)
	told := false
	for len(r.health) > 0 {
		told = (<-r.health).Refuses || told
	}
	require.True(t, told)
}

// impatient has the locks confirmed all the time.
func (r *rig) impatient() {
	r.file.nlm.cancel()
	r.file.nlm.work.Wait()
	l := &fileLocks{
		url: r.file.url, dialer: r.file.dialer, port: r.file.nlm.port, handle: r.file.handle, want: r.file.nlm.writes, owner: r.file.nlm.owner, note: r.file.nlm.note,
		each: time.Millisecond, turn: newTurn(r.file.nlm.writes),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	r.file.guardBy(l)
}

// Goal: locks that a server forgets without a word are taken again, also those of a disk that nobody uses, and it is noticed when somebody else has got them; one who only looks in for a
// moment is nobody. Method: an administrator drops them; then QEMU comes and goes; then it stays.
func TestLocksAreWatched(t *testing.T) {
	r := newRig(t, nfstest.Options{Locks: nfstest.NamedLocks}, nil)
	r.check(0, make([]byte, 512))
	r.impatient()
	before := r.server.Locks(diskPath)
	r.server.DropLocks(diskPath)
	r.server.AwaitLocks(diskPath, len(before))
	require.Equal(t, before, r.server.Locks(diskPath))

	tests := r.server.Calls(nfstest.LockTest)
	r.server.PutLock(diskPath, foreign)
	r.server.AwaitCalls(nfstest.LockTest, tests+8)
	r.server.DropLocks(diskPath)
	r.server.AwaitLocks(diskPath, len(before))
	require.NoError(t, r.do(r.writing(0, random(1, 512), 0)))

	r.server.PutLock(diskPath, foreign)
	require.True(t, (<-r.health).Refuses)
	require.ErrorIs(t, r.do(r.writing(0, random(1, 512), 0)), syscall.EIO)
}

// Goal: a lock manager that is away has requests wait until it is back, and no longer than their timeout; a file is closed all the same, soon. Method: the server falls silent to the lock
// manager's calls only.
func TestLockManagerIsAway(t *testing.T) {
	r := newRig(t, nfstest.Options{Locks: nfstest.NamedLocks}, func(o *Options) { o.LockNotes = t.TempDir() })
	r.write(0, random(1, 512), 0)
	heal := r.server.Inject(nfstest.Rule{Proc: nfstest.LockNMLock, Count: -1, Fault: nfstest.Fault{Status: nfstest.LockFailed}})
	r.server.DropConnections(true)
	waits := r.begin(r.writing(0, random(2, 512), 0))
	require.Contains(t, (<-r.health).Why, "NLM4_FAILED")
	heal()
	require.NoError(t, r.wait(waits))
	require.NoError(t, r.flush())

	r.server.Inject(nfstest.Rule{Proc: nfstest.LockUnlock, Count: -1, Fault: nfstest.Fault{NoReply: true}})
	begun := time.Now()
	note := r.file.nlm.note.file.Name()
	r.close()
	require.Less(t, time.Since(begun), unlockMax+patienceMax/2)
	require.FileExists(t, note, "what may still be at the server is noted down")
	r.server.Heal()
	r.open(func(o *Options) { o.LockNotes = noteDirectory(note) })
	require.NoFileExists(t, note)
}

// Goal: a file that is gone when its server comes back is an error, as it is without locks, and nothing that is waited for; the file is closed without ado. When its file system
// is there again, requests are answered, with the locks. Method: the lock manager, and then NFS too, do not know the handle after a restart.
func TestFileIsGoneAfterARestart(t *testing.T) {
	r := newRig(t, nfstest.Options{Locks: nfstest.LinuxLocks}, nil)
	r.write(0, random(1, 4096), 0)
	before := r.server.Locks(diskPath)
	r.server.Crash(nfstest.LoseAll)
	heal := r.server.Inject(nfstest.Rule{Proc: nfstest.LockNMLock, Count: -1, Fault: nfstest.Fault{Status: nfstest.LockStaleFH}})
	waits := r.begin(r.writing(8192, random(3, 4096), 0))
	require.False(t, (<-r.health).OK)
	writes := r.server.Calls(nfstest.Write)
	r.server.Restart()
	require.ErrorIs(t, r.wait(waits), syscall.ESTALE)
	require.ErrorIs(t, r.do(r.reading(8192, make([]byte, 512))), syscall.ESTALE)
	require.ErrorIs(t, r.flush(), syscall.ESTALE)
	require.Contains(t, r.file.Health().Why, "does not know the file")
	require.Equal(t, writes, r.server.Calls(nfstest.Write))

	heal()
	r.check(0, random(1, 4096))
	require.NoError(t, r.flush())
	require.Equal(t, before, r.server.Locks(diskPath))
	require.Equal(t, random(1, 4096), r.server.Stable(diskPath)[:4096])
}
