package qcow2

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Goal: a table that takes the place of a shared one says what the shared one says in memory: flags that a failed commit has left there too. Otherwise one
// writer takes a cluster for shared and copies it, and another writes to it in place meanwhile. Method: a flag is taken off in memory alone; another
// cluster is written to.
func TestNewTableHasWhatIsInMemory(t *testing.T) {
	path := create(t, filepath.Join(scratch(t), "image"), "4M", "")
	r := open(t, path, Options{})
	r.write(0, make([]byte, 512))
	i := r.image
	require.NoError(t, r.do(func(t *blockcore.Task, _ *blockcore.Edge) error { return i.Flush(t) }))
	entry := func(change bool) (copied bool) {
		require.NoError(t, r.do(func(task *blockcore.Task, _ *blockcore.Edge) error {
			e, at, err := i.rawEntry(task, 0)
			if err != nil || !change {
				copied = e.Copied()
				return err
			}
			e.Descriptor &^= format.FlagCopied
			i.setEntry(task, i.l2.peek(at.piece), at, e)
			i.l1.set(at.l1Index, uint64(at.table))
			return nil
		}))
		return copied
	}
	require.True(t, entry(false))
	entry(true)
	r.write(1<<20, make([]byte, 512))
	require.True(t, i.l1.entry(0).Copied())
	require.False(t, entry(false))
}
