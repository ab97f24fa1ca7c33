package nfs

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// Goal: a call that is lost, answered late, twice, in pieces, or to nobody is no error and no wrong data. Method: one fault at a time for some calls of each
// kind, under writes, reads and flushes, whose contents are compared.
func TestFaultsOfCalls(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault nfstest.Fault
	}{
		{"lost call", nfstest.Fault{Drop: nfstest.BeforeExecuting}},
		{"lost reply", nfstest.Fault{Drop: nfstest.AfterExecuting}},
		{"half a reply", nfstest.Fault{Drop: nfstest.AmidReply}},
		{"reset", nfstest.Fault{Drop: nfstest.AfterExecuting, Reset: true}},
		{"late", nfstest.Fault{Delay: 50 * time.Millisecond}},
		{"out of order", nfstest.Fault{Behind: 2, Delay: 20 * time.Millisecond}},
		{"twice", nfstest.Fault{Again: 2}},
		{"to nobody, and once more", nfstest.Fault{FlipXID: 0xffff0000, Again: 1, Drop: nfstest.AfterExecuting}},
		{"fragments", nfstest.Fault{FragmentBytes: 1}},
		{"longer fragments", nfstest.Fault{FragmentBytes: 1000}},
		{"cut in the head", nfstest.Fault{CutTo: 10}},
		{"cut in the results", nfstest.Fault{CutTo: 26}},
		{"cut in the data", nfstest.Fault{CutTo: 200}},
		{"absurd length", nfstest.Fault{Mangle: nfstest.AbsurdLength}},
		{"garbage", nfstest.Fault{Mangle: nfstest.Garbage(1)}},
		{"garbage with the right id", nfstest.Fault{Mangle: nfstest.GarbageAfterXID(2)}},
		{"more promised than sent", nfstest.Fault{Mangle: nfstest.Overpromise(100), Drop: nfstest.AfterExecuting}},
		{"endless", nfstest.Fault{Endless: true}},
		{"endless fragments", nfstest.Fault{Endless: true, FragmentBytes: 4096}},
		{"jukebox", nfstest.Fault{Status: nfstest.Jukebox}},
		{"jukebox afterwards", nfstest.Fault{StatusAfter: nfstest.Jukebox}},
		{"short", nfstest.Fault{Short: 1000}},
		{"verifier of another run", nfstest.Fault{Verifier: 77}},
		{"unstable whatever was asked", nfstest.Fault{ClaimUnstable: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it is mostly waiting
			r := newRig(t, nfstest.Options{ReadBytesMax: 32 << 10, WriteBytesMax: 16 << 10}, nil)
			want := random(1, diskBytes)
			for _, proc := range []nfstest.Proc{nfstest.Write, nfstest.Read, nfstest.Commit} {
				disarm := r.server.Inject(nfstest.Rule{Proc: proc, First: 2, Count: 2, Fault: c.fault})
				r.server.Inject(nfstest.Rule{Proc: proc, First: 4, Fault: c.fault})
				for round := range 3 {
					copy(want[round*50000:], random(uint64(round), 100000))
					r.write(0, want[:100001], 0)
					r.write(100001, want[100001:], blockcore.WriteFUA)
					require.NoError(t, r.flush())
					require.Equal(t, want, r.server.Stable(diskPath))
					r.check(0, want)
					r.check(777, want[777:1777])
				}
				require.Positive(t, disarm())
				r.server.Heal()
			}
		})
	}
}

// Goal: what the server refuses is an error with its number, and nothing is repeated. Method: each status for a read, a write and a flush.
func TestStatusesReachTheClient(t *testing.T) {
	for status, want := range map[nfstest.Status]syscall.Errno{
		nfstest.IO: syscall.EIO, nfstest.NoSpc: syscall.ENOSPC, nfstest.DQuot: syscall.EDQUOT, nfstest.Stale: syscall.ESTALE,
		nfstest.ROFS: syscall.EROFS, nfstest.Acces: syscall.EACCES, nfstest.BadHandle: syscall.ESTALE, nfstest.ServerFault: syscall.EREMOTEIO,
	} {
		r := newRig(t, nfstest.Options{}, nil)
		r.server.Inject(nfstest.Rule{Proc: nfstest.Read, Fault: nfstest.Fault{Status: status}})
		require.ErrorIs(t, r.do(r.reading(0, make([]byte, 100))), want)
		r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Status: status}})
		require.ErrorIs(t, r.do(r.writing(0, make([]byte, 100), 0)), want)
		r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Fault: nfstest.Fault{Status: status}})
		require.ErrorIs(t, r.do(r.writing(0, make([]byte, 100), blockcore.WriteFUA)), want)
		require.NoError(t, r.flush())
		require.Equal(t, 1, r.server.Calls(nfstest.Commit), "there was nothing to commit, but what others had written when the file was opened")
		r.write(0, []byte("data"), 0)
		r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{Status: status}})
		err := r.flush()
		require.ErrorIs(t, err, want)
		require.ErrorContains(t, err, r.file.Path())
		if remedy := remedyInUse(want); remedy != "" {
			require.ErrorContains(t, err, remedy)
		}
		r.close()
	}
}

// Goal: ENOSPC that comes late reaches every FLUSH until everything is stored, and then all of it is. Method: a COMMIT fails and the server
// has dropped the data, as a full disk does; WRITEs that repeat it fail as well for a while.
func TestLateErrorsStayUntilAllIsStored(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	want := random(3, 100000)
	r.write(0, want, 0)
	r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{
		Before: func() { r.server.LoseUnstable(nfstest.LoseAll) }, Status: nfstest.NoSpc,
	}})
	require.ErrorIs(t, r.flush(), syscall.ENOSPC)
	disarm := r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Count: -1, Fault: nfstest.Fault{Status: nfstest.NoSpc}})
	require.ErrorIs(t, r.flush(), syscall.ENOSPC)
	require.ErrorIs(t, r.flush(), syscall.ENOSPC)
	r.check(0, want)
	disarm()
	require.NoError(t, r.flush())
	require.Equal(t, want, r.server.Stable(diskPath)[:len(want)])
	require.NoError(t, r.flush())
}

// Goal: nothing that a FLUSH has promised is lost when the server's power goes, and what was written is read in any case. Method: crashes
// at many moments, which lose all or some of what is unstable, before, amid and after WRITEs and COMMITs.
func TestCrashesLoseNothingThatWasFlushed(t *testing.T) {
	for seed := range uint64(24) {
		r := newRig(t, nfstest.Options{Seed: seed, WriteBytesMax: 8192, ReadBytesMax: 8192}, func(o *Options) { o.Connections = 1 + int(seed%3) })
		loss := nfstest.LoseAll
		if seed%2 == 1 {
			loss = nfstest.LoseSome
		}
		crash := func() {
			r.server.Crash(loss)
			r.server.Restart()
		}
		proc := []nfstest.Proc{nfstest.Write, nfstest.Commit, nfstest.Read}[seed%3]
		fault := nfstest.Fault{After: crash}
		if seed%4 < 2 {
			fault = nfstest.Fault{Before: crash}
		}
		want := make([]byte, diskBytes)
		for round := range 6 {
			r.server.Inject(nfstest.Rule{Proc: proc, First: 1 + round%4, Fault: fault})
			off := int64(seed*1009+uint64(round)*30011) % (diskBytes / 2)
			p := random(seed*100+uint64(round), 70000)
			copy(want[off:], p)
			r.write(off, p, 0)
			r.check(off, p)
			if round%2 == 0 {
				r.server.LoseUnstable(loss)
				r.check(0, want)
			}
			require.NoError(t, r.flush())
			require.True(t, bytes.Equal(want, r.server.Stable(diskPath)), "seed %d, round %d: flushed data is lost", seed, round)
			r.check(0, want)
		}
		r.close()
	}
}

// Goal: a server with another verifier in each reply does not keep a FLUSH for ever. Method: that server.
func TestVerifierNeverTheSame(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Count: -1, Fault: nfstest.Fault{Before: r.server.ChangeVerifier}})
	want := random(4, 50000)
	r.write(5, want, 0)
	require.NoError(t, r.flush())
	require.Equal(t, want, r.server.Stable(diskPath)[5:5+len(want)])
}

// Goal: requests wait for a server that is away, are answered when it is back, and somebody is told of both. Method: connections lost, new ones
// refused; and a server that accepts and says nothing, whose connection is made anew when it is lost.
func TestRequestsWaitForTheServer(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	want := random(5, 10000)
	r.write(0, want, 0)
	r.server.Refuse()
	r.server.DropConnections(true)
	reading := r.begin(r.reading(0, append(bytes.Clone(want), 0)))
	h := <-r.health
	require.False(t, h.OK)
	require.Contains(t, h.String(), "refused")
	require.False(t, r.file.Health().OK)
	flushing := r.begin(func(t *blockcore.Task) error { return r.file.Flush(t) })
	r.server.Accept()
	require.NoError(t, r.wait(reading))
	require.NoError(t, r.wait(flushing))
	require.True(t, (<-r.health).OK)
	require.True(t, r.file.Health().OK)
	require.Positive(t, r.file.Counters().Connects)
	require.Equal(t, want, r.server.Stable(diskPath)[:len(want)])

	r.server.Silence()
	reading = r.begin(r.reading(0, append(bytes.Clone(want), 0)))
	r.server.AwaitConnections(1)
	r.server.DropConnections(false)
	r.server.Speak()
	require.NoError(t, r.wait(reading))
}

// Goal: with a timeout requests fail in time when the server is silent or away, and work again when it is back; a FLUSH that failed so has lost nothing. Method: a short
// timeout.
func TestTimeout(t *testing.T) {
	r := newRig(t, nfstest.Options{}, func(o *Options) { o.Timeout = 100 * time.Millisecond })
	want := random(6, 10000)
	r.write(0, want, 0)
	for _, c := range []struct{ fail, mend func() }{
		{r.server.Silence, r.server.Speak},
		{func() { r.server.Refuse(); r.server.DropConnections(false) }, r.server.Accept},
	} {
		c.fail()
		require.ErrorIs(t, r.flush(), syscall.ETIMEDOUT)
		require.ErrorIs(t, r.do(r.reading(0, make([]byte, 20000))), syscall.ETIMEDOUT)
		require.ErrorIs(t, r.do(r.writing(0, want[:100], blockcore.WriteFUA)), syscall.ETIMEDOUT)
		r.check(0, want) // it is held
		c.mend()
		require.Eventually(t, func() bool { return r.flush() == nil }, patienceMax, time.Millisecond)
		require.Equal(t, want, r.server.Stable(diskPath)[:len(want)])
		r.write(0, want, 0)
	}
}

// Goal: a READ or WRITE that was given up leaves nothing behind that could touch its buffer. Method: given up while the data goes over the wire, in
// both directions; the buffers are used for something else, and looked at, when the server goes on.
func TestGivenUpHalfway(t *testing.T) {
	r := newRig(t, nfstest.Options{}, func(o *Options) { o.Timeout = 100 * time.Millisecond })
	size := int64(64 << 20)
	r.server.Put("/export/large", nfstest.File{SizeBytes: size})
	r.close()
	o := optionsOf(t, r.server, "/export/large")
	o.Timeout = 100 * time.Millisecond
	var err error
	r.file, err = Open(o)
	require.NoError(t, err)
	r.server.Silence()
	big := bytes.Repeat([]byte{1}, 8<<20)
	require.ErrorIs(t, r.do(r.writing(0, big, 0)), syscall.ETIMEDOUT)
	r.server.Speak()
	r.server.Inject(nfstest.Rule{Proc: nfstest.Read, Fault: nfstest.Fault{Mangle: func(p []byte) []byte { return p[:len(p)/2] }}})
	err = r.do(func(t *blockcore.Task) error {
		buf := t.Buffers().Get(1 << 20)
		defer t.Buffers().Put(buf)
		return r.file.ReadAt(t, buf, size/2)
	})
	require.ErrorIs(t, err, syscall.ETIMEDOUT)
	require.NoError(t, r.do(func(t *blockcore.Task) error {
		buf, small := t.Buffers().Get(1<<20), t.Buffers().Get(4096)
		defer t.Buffers().Put(buf)
		defer t.Buffers().Put(small)
		for i := range buf {
			buf[i] = 7
		}
		for begin := t.Now(); ; {
			err := r.file.ReadAt(t, small, size/2)
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.ETIMEDOUT) || t.Now() > begin+patienceMax {
				return err
			}
		}
		if !bytes.Equal(bytes.Repeat([]byte{7}, len(buf)), buf) {
			return errors.New("somebody has written to a buffer that is in other hands")
		}
		return nil
	}))
}

// Goal: a file is closed at once although the server is silent, with data that it has not committed, and while a connection is being made. Method: that; the rig's
// end waits for the close and goleak for the goroutines.
func TestCloseOfASilentServer(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	r.write(0, random(7, 10000), 0)
	r.server.Silence()
	r.close()
	r.server.Speak()
	r.open(nil)
	r.write(0, random(7, 10000), 0)
	r.server.Refuse()
	r.server.DropConnections(false)
	begin := time.Now()
	r.close()
	require.Less(t, time.Since(begin), patienceMax/2)
}
