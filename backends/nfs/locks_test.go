package nfs

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// managers are the kinds of lock managers.
var managers = map[string]nfstest.LockManager{"named": nfstest.NamedLocks, "linux": nfstest.LinuxLocks}

// lockedServer has a disk and a lock manager.
func lockedServer(t *testing.T, kind nfstest.LockManager) *nfstest.Server {
	t.Helper()
	s := nfstest.Start(t, nfstest.Options{Locks: kind})
	s.Put(diskPath, nfstest.File{SizeBytes: diskBytes})
	return s
}

// tryOpen opens the disk of a server, which is closed at the end of the test if it is not before.
func tryOpen(t *testing.T, s *nfstest.Server, change func(*Options)) (*File, error) {
	t.Helper()
	o := optionsOf(t, s, diskPath)
	if change != nil {
		change(&o)
	}
	f, err := Open(o)
	if err == nil {
		t.Cleanup(func() { closeFile(t, f) })
	}
	return f, err
}

// closeFile closes a file; a second time does nothing.
func closeFile(t *testing.T, f *File) {
	t.Helper()
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	defer ctx.Close()
	r := &rig{t: t, ctx: ctx, file: f}
	require.NoError(t, r.do(f.Close))
}

func readOnly(o *Options) { o.ReadOnly = true }

// lockedBytes are the offsets of a file's locks.
func lockedBytes(s *nfstest.Server) (at []uint64) {
	for _, l := range s.Locks(diskPath) {
		at = append(at, l.Offset)
	}
	return at
}

// Goal: the locks of a disk are those that QEMU takes on a file of this host, and are gone when it is closed. Method: each way to open it, and the bytes that the
// server has locked.
func TestLocksAreThoseOfQEMU(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   []uint64
	}{
		{"writer", nil, []uint64{100, 101, 201, 203}},
		{"image", func(o *Options) { o.Grows = true }, []uint64{100, 101, 103, 201, 203}},
		{"reader", readOnly, []uint64{100, 201, 203}},
		{"reader of an image", func(o *Options) { o.ReadOnly, o.Grows = true, true }, []uint64{100, 201, 203}},
		{"sharing writer", func(o *Options) { o.ShareRW = true }, []uint64{100, 101, 203}},
		{"force-share", func(o *Options) { o.ReadOnly, o.ForceShare = true, true }, nil},
		{"off", func(o *Options) { o.Locking = imagelock.Off }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := lockedServer(t, nfstest.NamedLocks)
			f, err := tryOpen(t, s, c.change)
			require.NoError(t, err)
			require.Equal(t, c.want, lockedBytes(s))
			for _, l := range s.Locks(diskPath) {
				require.Equal(t, uint64(1), l.LengthBytes)
				require.False(t, l.Exclusive)
			}
			closeFile(t, f)
			require.Empty(t, s.Locks(diskPath))
		})
	}
}

// Goal: who may not use a disk beside another is refused, by name of what is in the way and of who it is, and leaves the other's locks as they are. Method: pairs, on both kinds of
// lock managers.
func TestLocksExclude(t *testing.T) {
	sharing := func(o *Options) { o.ShareRW = true }
	for _, c := range []struct {
		name          string
		first, second func(*Options)
		message       string // "" = they go together
	}{
		{"writers", nil, nil, `Failed to get "write" lock`},
		{"a writer and a reader", nil, readOnly, `Failed to get shared "write" lock`},
		{"a reader and a writer", readOnly, nil, `Failed to get "write" lock`},
		{"readers", readOnly, readOnly, ""},
		{"sharing writers", sharing, sharing, ""},
		{"one that shares and one that does not", sharing, nil, `Failed to get shared "write" lock`},
		{"an image that grows", sharing, func(o *Options) { o.ShareRW, o.Grows = true, true }, `Failed to get "resize" lock`},
		{"force-share", nil, func(o *Options) { o.ReadOnly, o.ForceShare = true, true }, ""},
	} {
		for kind, manager := range managers {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				s := lockedServer(t, manager)
				first, err := tryOpen(t, s, c.first)
				require.NoError(t, err)
				before := s.Locks(diskPath)
				second, err := tryOpen(t, s, c.second)
				if c.message == "" {
					require.NoError(t, err)
					closeFile(t, second)
				} else {
					conflict, is := errors.AsType[*imagelock.ConflictError](err)
					require.True(t, is, "%v", err)
					require.Equal(t, c.message, conflict.Message())
					require.ErrorIs(t, err, syscall.EAGAIN)
					require.ErrorContains(t, err, "lock owner 0x")
					require.Equal(t, manager == nfstest.NamedLocks, errorHas(err, "nbd-dataplane@"))
				}
				require.Equal(t, before, s.Locks(diskPath))
				closeFile(t, first)
				_, err = tryOpen(t, s, c.second)
				require.NoError(t, err)
			})
		}
	}
}

func errorHas(err error, text string) bool {
	return err != nil && strings.Contains(err.Error(), text)
}

// Goal: a file that somebody has locked whole is refused, and one whose locks are elsewhere is not. Method: such locks of another host.
func TestLocksOfOthers(t *testing.T) {
	for _, c := range []struct {
		name    string
		lock    nfstest.Lock
		refused bool
	}{
		{"all of it", nfstest.Lock{Exclusive: true}, true},
		{"all of it, shared", nfstest.Lock{}, true}, // it is on the bytes that nobody may have
		{"its first bytes", nfstest.Lock{Exclusive: true, LengthBytes: 100}, false},
		{"QEMU, which writes", nfstest.Lock{Offset: 101, LengthBytes: 1}, true},
		{"QEMU, which reads and shares", nfstest.Lock{Offset: 100, LengthBytes: 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := lockedServer(t, nfstest.LinuxLocks)
			c.lock.Host, c.lock.Number = "other", 1
			s.PutLock(diskPath, c.lock)
			_, err := tryOpen(t, s, nil)
			require.Equal(t, c.refused, isLocked(err), "%v", err)
			if !c.refused {
				require.NoError(t, err)
				return
			}
			require.Len(t, s.Locks(diskPath), 1)
		})
	}
}

// Goal: without a lock manager a disk is opened, with a warning if it is written to, or refused if a lock is demanded. Method: all ways in which there can be none.
func TestNoLockManager(t *testing.T) {
	for _, c := range []struct {
		name   string
		server nfstest.Options
		rule   *nfstest.Rule
	}{
		{"no port mapper and none told", nfstest.Options{}, nil},
		{"another program", nfstest.Options{Locks: nfstest.NamedLocks}, &nfstest.Rule{Proc: nfstest.LockNMLock, Count: -1, Fault: nfstest.Fault{Accept: nfstest.ProgUnavail}}},
		{"another version", nfstest.Options{Locks: nfstest.NamedLocks}, &nfstest.Rule{Proc: nfstest.LockNMLock, Count: -1, Fault: nfstest.Fault{Accept: nfstest.ProgMismatch}}},
		{"no such procedure", nfstest.Options{Locks: nfstest.NamedLocks}, &nfstest.Rule{Proc: nfstest.LockNMLock, Count: -1, Fault: nfstest.Fault{Accept: nfstest.ProcUnavail}}},
		{"no room", nfstest.Options{Locks: nfstest.NamedLocks}, &nfstest.Rule{Proc: nfstest.LockNMLock, First: 2, Count: -1, Fault: nfstest.Fault{Status: nfstest.LockNoLocks}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := nfstest.Start(t, c.server)
			s.Put(diskPath, nfstest.File{SizeBytes: diskBytes})
			if c.rule != nil {
				s.Inject(*c.rule)
			}
			var warnings []string
			warn := func(o *Options) { o.Warn = func(w string) { warnings = append(warnings, w) } }
			_, err := tryOpen(t, s, warn)
			require.NoError(t, err)
			require.Len(t, warnings, 1)
			require.Contains(t, warnings[0], "no lock is taken")
			require.Empty(t, s.Locks(diskPath))
			_, err = tryOpen(t, s, func(o *Options) { warn(o); o.ReadOnly = true })
			require.NoError(t, err)
			require.Len(t, warnings, 1)
			_, err = tryOpen(t, s, func(o *Options) { o.Locking = imagelock.On })
			require.ErrorIs(t, err, errNoLocks)
			require.ErrorContains(t, err, "locking=off")
		})
	}
}

// Goal: a lock manager that says nothing, or nothing that makes sense, is no lock and no absence of locks, and does not keep anybody. Method: faults of its replies.
func TestBadLockManager(t *testing.T) {
	for name, fault := range map[string]nfstest.Fault{
		"silent":    {NoReply: true},
		"closing":   {Drop: nfstest.AfterExecuting},
		"cut short": {CutTo: 26},
		"garbage":   {Mangle: nfstest.GarbageAfterXID(3)},
		"absurd":    {Mangle: nfstest.AbsurdLength},
		"endless":   {Endless: true, FragmentBytes: 4},
		"failing":   {Status: nfstest.LockFailed},
		"unknown":   {Status: 77},
		"too weak":  {Deny: nfstest.TooWeak},
	} {
		for _, proc := range []nfstest.Proc{nfstest.LockNMLock, nfstest.LockTest} {
			t.Run(name+" "+string(proc), func(t *testing.T) {
				s := lockedServer(t, nfstest.NamedLocks)
				s.Inject(nfstest.Rule{Proc: proc, Count: -1, Fault: fault})
				ctx, cancel := context.WithTimeout(context.Background(), patienceMax)
				defer cancel()
				if fault.NoReply {
					go func() {
						s.AwaitCalls(proc, 1)
						cancel()
					}()
				}
				o := optionsOf(t, s, diskPath)
				w := newWalker(ctx, &o)
				_, err := w.open()
				w.close()
				require.Error(t, err)
				require.NotErrorIs(t, err, errNoLocks)
				require.Equal(t, locking, w.doing)
			})
		}
	}
}

// Goal: a server that was just restarted is waited for, and no longer than a file is. Method: a time of grace that ends, and one that does not.
func TestGraceAtOpening(t *testing.T) {
	s := lockedServer(t, nfstest.NamedLocks)
	s.SetGrace(true)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		s.AwaitCalls(nfstest.LockNMLock, 2)
		cancel()
	}()
	o := optionsOf(t, s, diskPath)
	w := newWalker(ctx, &o)
	_, err := w.open()
	w.close()
	require.ErrorContains(t, w.explain(err), "try again in a minute")

	before := s.Calls(nfstest.LockNMLock)
	opened := make(chan error)
	go func() {
		_, err := tryOpen(t, s, nil)
		opened <- err
	}()
	s.AwaitCalls(nfstest.LockNMLock, before+1)
	s.SetGrace(false)
	require.NoError(t, <-opened)
	require.Equal(t, []uint64{100, 101, 201, 203}, lockedBytes(s))
}
