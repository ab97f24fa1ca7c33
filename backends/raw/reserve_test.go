package raw

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// reserving is a kernel that notes what is to have a place on the disk, and has none.
type reserving struct {
	kernel
	asked []blockcore.Range
}

func (r *reserving) reserve(_ int, off, length int64) error {
	r.asked = append(r.asked, blockcore.Range{Offset: off, Length: length})
	return unix.ENOSPC
}

// Goal: what a file is made longer by gets its place on ext4 only and nowhere twice, and without one the file is longer all the same; method: extend a
// file over a kernel that notes and refuses, which is said to be on several file systems.
func TestReserve(t *testing.T) {
	r := newRig(t, Options{})
	s := &reserving{}
	r.f.system = s
	extend := func(fileSystem, toBytes int64) {
		require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error {
			r.f.device.fileSystem = fileSystem
			return r.f.Extend(t, toBytes)
		}))
		require.Equal(t, toBytes, r.f.Size())
	}
	extend(unix.TMPFS_MAGIC, 128<<10)
	require.Empty(t, s.asked)
	extend(unix.EXT4_SUPER_MAGIC, 192<<10)
	extend(unix.EXT4_SUPER_MAGIC, 1<<20)
	require.Equal(t, []blockcore.Range{{Offset: 128 << 10, Length: 64 << 10}, {Offset: 192 << 10, Length: 832 << 10}}, s.asked)
	extend(unix.EXT4_SUPER_MAGIC, 8<<40) // more than there is
	require.Len(t, s.asked, 2)
}
