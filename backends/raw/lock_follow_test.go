package raw

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// access makes the disk read-only or writable, and fails with fail if that is not nil.
func (d *disk) access(readOnly bool, fail error) error {
	d.t.Helper()
	return d.change(func(tx *blockcore.Tx, s *blockcore.Drained) error {
		return errors.Join(tx.SetAccess(s, d.node, readOnly), fail)
	})
}

// Goal: a file that becomes read-only in the graph lets others open it for reading, and takes all of its locks again when it is to be written; who is in the
// way of that keeps it read-only. Method: other openings of the file, and the bytes that are locked.
func TestAccessFollowsInLocks(t *testing.T) {
	for _, readOnly := range []bool{false, true} { // as what it is opened
		t.Run(fmt.Sprint(readOnly), func(t *testing.T) { followAccess(t, readOnly) })
	}
}

func followAccess(t *testing.T, readOnly bool) {
	path := makeFile(t, t.TempDir(), 64<<10)
	d := newDisk(t, Options{Path: path, ReadOnly: readOnly})
	all, reads := Options{Path: path}, Options{Path: path, ReadOnly: true}
	require.NoError(t, d.access(false, nil))
	require.Equal(t, bytesOf(all.locks()), lockedBytes(t, path))
	require.NoError(t, d.fill(0, 4096, 1))
	undone := errors.New("undone")
	require.ErrorIs(t, d.access(true, undone), undone)
	require.Equal(t, bytesOf(all.locks()), lockedBytes(t, path))
	require.NoError(t, d.fill(0, 4096, 2))

	require.NoError(t, d.access(true, nil))
	require.Equal(t, bytesOf(reads.locks()), lockedBytes(t, path))
	require.False(t, d.node.Writable())
	reader := mustOpen(t, reads)
	_, err := Open(all)
	require.Error(t, err)
	var lock *imagelock.ConflictError
	require.ErrorAs(t, d.access(false, nil), &lock)
	require.False(t, d.node.Writable())
	require.NoError(t, d.reopen(all)) // its node is read-only
	require.NoError(t, d.ctx.Do(reader.Close))
	require.Equal(t, bytesOf(reads.locks()), lockedBytes(t, path))

	require.ErrorIs(t, d.access(false, undone), undone)
	require.Equal(t, bytesOf(reads.locks()), lockedBytes(t, path))
	require.NoError(t, d.access(false, nil))
	require.Equal(t, bytesOf(all.locks()), lockedBytes(t, path))
	require.NoError(t, d.fill(0, 4096, 3))
	require.NoError(t, d.ctx.Do(d.f.Flush))
}
