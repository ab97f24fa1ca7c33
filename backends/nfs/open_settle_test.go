package nfs

import (
	"context"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
)

// Goal: what a process that is gone had written and not committed is on stable storage when the next one has opened the file, since a FLUSH there covers it for a client who comes back; who only reads
// commits nothing, and a server that cannot commit is told of. Method: a file with writes that is left as it is, another one of the same, and the server loses what is not stable.
func TestOpeningCommitsWhatWasLeft(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	want := random(6, 50000)
	r.write(0, want, 0)
	left := r.file
	commits := r.server.Calls(nfstest.Commit)
	r.open(func(o *Options) { o.ReadOnly = true })
	r.close()
	require.Equal(t, commits, r.server.Calls(nfstest.Commit))
	require.NotEqual(t, want, r.server.Stable(diskPath)[:len(want)])
	r.open(nil)
	require.Equal(t, want, r.server.Stable(diskPath)[:len(want)])
	r.server.LoseUnstable(nfstest.LoseAll)
	require.NoError(t, r.flush())
	r.check(0, want)
	r.close()
	r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{Status: nfstest.IO}})
	_, err := Open(optionsOf(t, r.server, diskPath))
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "commit what was written before")
	r.file = left
}

// Goal: a server may take as long over what was left to be committed as an open may take in all, longer than over other answers, and who waited in vain is told what to do.
// Method: the answer to the COMMIT never comes; then the time for the open is over.
func TestOpeningWaitsForTheServersDisk(t *testing.T) {
	r := newRig(t, nfstest.Options{}, nil)
	ctx, giveUp := context.WithCancel(t.Context())
	r.server.Inject(nfstest.Rule{Proc: nfstest.Commit, Fault: nfstest.Fault{NoReply: true, After: giveUp}})
	o := optionsOf(t, r.server, diskPath)
	w := newWalker(ctx, &o)
	defer w.close()
	_, err := w.open()
	require.Error(t, err)
	require.Equal(t, openMax, w.nfs.patience)
	require.ErrorContains(t, w.explain(err), "commit what was written before: ")
	require.ErrorContains(t, w.explain(err), "try again, it goes on meanwhile")
}
