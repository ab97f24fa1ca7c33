package nfs

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
)

// Goal: a resize that the server has done succeeds, and one that it has not done fails. Method: the reply is lost, or the call, and the next call is refused.
func TestResizeOfWhichTheReplyIsLost(t *testing.T) {
	for lost, done := range map[nfstest.Moment]bool{nfstest.AfterExecuting: true, nfstest.BeforeExecuting: false} {
		for _, sizeBytes := range []int64{diskBytes / 2, diskBytes * 2} {
			r := newRig(t, nfstest.Options{}, nil)
			r.server.Inject(nfstest.Rule{Proc: nfstest.SetAttr, Fault: nfstest.Fault{Drop: lost}})
			r.server.Inject(nfstest.Rule{Proc: nfstest.SetAttr, Fault: nfstest.Fault{Status: nfstest.NoSpc}})
			err := r.do(func(t *blockcore.Task) error { return r.file.Resize(t, sizeBytes) })
			if !done {
				require.ErrorContains(t, err, "NOSPC")
				require.Equal(t, int64(diskBytes), r.file.Size())
				continue
			}
			require.NoError(t, err)
			require.Equal(t, sizeBytes, r.file.Size())
		}
	}
}
