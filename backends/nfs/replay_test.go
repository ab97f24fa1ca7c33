package nfs

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// Goal: what a restart has lost is written again many ranges at once, as far as they go, and each byte as it was written. Method: pages far from one another, in part and
// whole; the server answers no WRITE before all of them have come; more of them than go at once.
func TestReplayIsPipelined(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	r.close()
	const pages = 3*replaysMax/2 + 1
	r.server.Put("/export/sparse", nfstest.File{SizeBytes: 3 * pages * pageBytes})
	var err error
	r.file, err = Open(optionsOf(t, r.server, "/export/sparse"))
	require.NoError(t, err)
	want := make([]byte, 3*pages*pageBytes)
	for i := range pages {
		at := 3*i*pageBytes + i
		p := random(uint64(i), pageBytes-2*i)
		copy(want[at:], p)
		r.write(int64(at), p, 0)
	}
	before := r.server.Calls(nfstest.Write)
	r.server.LoseUnstable(nfstest.LoseAll)
	hold := make(chan struct{})
	r.server.Inject(nfstest.Rule{Proc: nfstest.Write, Count: -1, Fault: nfstest.Fault{Hold: hold}})
	flushing := r.begin(func(t *blockcore.Task) error { return r.file.Flush(t) })
	r.server.AwaitCalls(nfstest.Write, before+replaysMax)
	close(hold)
	require.NoError(t, r.wait(flushing))
	require.Equal(t, want, r.server.Stable("/export/sparse"))
	require.Equal(t, before+pages, r.server.Calls(nfstest.Write))
	require.Zero(t, r.file.held.pages.count)
}

// Goal: an error of a COMMIT counts that nobody has heard of because its connection was lost with it. Method: a server that drops the data, and
// whose answer gets lost; the next COMMIT is answered as if nothing had been.
func TestErrorOfACommitThatNobodyHears(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	want := random(8, 10000)
	r.write(0, want, 0)
	r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{
		Drop: nfstest.AfterExecuting, Status: nfstest.NoSpc, Before: func() { r.server.Forget(nfstest.LoseAll) },
	}})
	require.NoError(t, r.flush())
	require.Equal(t, want, r.server.Stable(diskPath)[:len(want)])
}

// Goal: a page that comes to stable storage while it is written again, and whose place in memory another one takes at once, is not mistaken for that one. Method: the
// server says of one page that is written again that it is stable; before it answers the rest a client writes elsewhere.
func TestPageIsStableBeforeItsReplayEnds(t *testing.T) {
	r := newRig(t, nfstest.Options{}, func(o *Options) { o.Connections = 2 })
	want := make([]byte, diskBytes)
	put := func(page int) {
		p := random(uint64(page), pageBytes)
		copy(want[page*pageBytes:], p)
		r.write(int64(page*pageBytes), p, 0)
	}
	put(0)
	put(2)
	r.server.LoseUnstable(nfstest.LoseAll)
	hold := make(chan struct{})
	is := func(page uint64) func(nfstest.Call) bool {
		return func(c nfstest.Call) bool { return c.Offset == page*pageBytes }
	}
	r.server.Inject(nfstest.Rule{Proc: nfstest.Write, When: is(0), Fault: nfstest.Fault{Stable: true}})
	r.server.Inject(nfstest.Rule{Proc: nfstest.Write, When: is(2), Fault: nfstest.Fault{Hold: hold}})
	flushing := r.begin(func(t *blockcore.Task) error { return r.file.Flush(t) })
	require.Eventually(t, func() bool { return r.do(func(*blockcore.Task) error { return r.gone(0) }) == nil }, patienceMax, time.Millisecond)
	put(9)
	close(hold)
	require.NoError(t, r.wait(flushing))
	require.NoError(t, r.flush())
	require.Equal(t, want, r.server.Stable(diskPath))
}

// gone is an error as long as a page is held.
func (r *rig) gone(page int64) error {
	if r.file.held.pages.at(page) != nil {
		return syscall.EBUSY
	}
	return nil
}
