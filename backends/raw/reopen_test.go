package raw

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

func (d *disk) reopen(o Options) error {
	d.t.Helper()
	return d.change(func(tx *blockcore.Tx, s *blockcore.Drained) error { return tx.Reopen(s, d.node, o) })
}

// Goal: a disk can be opened in any other way while it is there, and each way is the one that opening would give; method: all pairs of
// a list of ways, contents compared each time.
func TestReopenInEveryWay(t *testing.T) {
	path := makeFile(t, t.TempDir(), 64<<10)
	ways := []Options{
		{},
		{ReadOnly: true},
		{Cache: Cache{Direct: true}},
		{Cache: Cache{Direct: true, Writethrough: true}, AIO: AIONative, Discard: DiscardUnmap},
		{Cache: Cache{NoFlush: true}, DetectZeroes: DetectOn},
		{Discard: DiscardUnmap, DetectZeroes: DetectUnmap},
		{Offset: 8192, ShareRW: true},
		{SizeBytes: 16384},
	}
	d := newDisk(t, Options{Path: path})
	require.NoError(t, d.fill(0, 64<<10, 1))
	for i := range ways {
		for j := range ways {
			for _, o := range []Options{ways[i], ways[j]} {
				o.Path = path
				require.NoError(t, d.reopen(o))
				fresh := mustOpen(t, withoutLocks(o))
				require.Equal(t, fresh.Size(), d.node.Size())
				require.Equal(t, fresh.Limits(), d.node.Limits())
				require.Equal(t, fresh.Features(), d.node.Features())
				require.NoError(t, d.ctx.Do(fresh.Close))
				require.Equal(t, !o.ReadOnly, d.node.Writable())
				err := d.fill(4096, 4096, byte(2+i))
				require.Equal(t, o.ReadOnly, err != nil, err)
				uses := o.locks()
				require.Equal(t, bytesOf(uses), lockedBytes(t, path))
			}
		}
	}
	require.NoError(t, d.reopen(Options{Path: path}))
	require.NoError(t, d.ctx.Do(d.f.Flush))
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, byte(1), content[0])
}

func withoutLocks(o Options) Options {
	o.Locking = imagelock.Off
	return o
}

// Goal: what cannot be changed is refused and nothing has changed; method: a table.
func TestReopenRefusals(t *testing.T) {
	path := makeFile(t, t.TempDir(), 64<<10)
	d := newDisk(t, Options{Path: path})
	locked := lockedBytes(t, path)
	before := d.f.opened
	for _, c := range []struct {
		o    any
		says string
	}{
		{Options{Path: path + "2"}, "Cannot change the option 'filename'"},
		{Options{Path: path, Locking: imagelock.Off}, "Cannot change the option 'locking'"},
		{Options{Path: path, ReadOnly: true, ForceShare: true}, "Cannot change the option 'force-share'"},
		{Options{Path: path, AIO: AIONative}, "aio=native was specified"},
		{Options{Path: path, DetectZeroes: DetectUnmap}, "setting detect-zeroes to unmap is not allowed"},
		{Options{Path: path, Offset: 128 << 10}, "is behind the end"},
		{"raw", "string are no options of a file"},
	} {
		err := d.change(func(tx *blockcore.Tx, s *blockcore.Drained) error { return tx.Reopen(s, d.node, c.o) })
		require.ErrorContains(t, err, c.says)
		require.Equal(t, before.fd, d.f.fd)
		require.Equal(t, before.options.ReadOnly, d.f.options.ReadOnly)
		require.Equal(t, locked, lockedBytes(t, path))
	}
}

// Goal: several files are reopened all or none, and descriptors and locks of those that are not stay as they were; method: a change
// that fails after both, one in which the second file has a conflict, and one that stands.
func TestReopenAllOrNone(t *testing.T) {
	dir := t.TempDir()
	paths := []string{makeFile(t, dir, 64<<10), makeFile(t, dir, 64<<10)}
	d := newDisk(t, Options{Path: paths[0], ReadOnly: true})
	second, f2 := d.add("second", Options{Path: paths[1], ReadOnly: true})
	both := func(fail error) error {
		return d.change(func(tx *blockcore.Tx, s *blockcore.Drained) error {
			if err := tx.Reopen(s, d.node, Options{Path: paths[0]}); err != nil {
				return err
			}
			if err := tx.Reopen(s, second, Options{Path: paths[1]}); err != nil {
				return err
			}
			return fail
		})
	}
	locked := [][]int64{lockedBytes(t, paths[0]), lockedBytes(t, paths[1])}
	unchanged := func() {
		t.Helper()
		require.False(t, d.node.Writable() || second.Writable())
		require.Equal(t, locked, [][]int64{lockedBytes(t, paths[0]), lockedBytes(t, paths[1])})
		require.Equal(t, 2, openDescriptors(t, paths[0]), "one for the data and one for the locks")
	}
	unchanged()
	no := errors.New("no")
	require.ErrorIs(t, both(no), no)
	unchanged()
	reader := mustOpen(t, Options{Path: paths[1], ReadOnly: true}) // shares no writing
	locked[1] = lockedBytes(t, paths[1])
	var conflict *imagelock.ConflictError
	require.ErrorAs(t, both(nil), &conflict)
	require.Equal(t, `Failed to get "write" lock`, conflict.Message())
	unchanged()
	require.NoError(t, d.ctx.Do(reader.Close))
	require.NoError(t, both(nil))
	require.True(t, d.node.Writable() && second.Writable())
	require.Equal(t, bytesOf((&Options{}).locks()), lockedBytes(t, paths[1]))
	require.Eventually(t, func() bool { return openDescriptors(t, paths[0]) == 2 }, waitMax, waitMax/1000) // the former one is closed behind it
	require.False(t, f2.readOnly)
}

// openDescriptors counts the descriptors of this process that are open on a file.
func openDescriptors(t *testing.T, path string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && target == path {
			n++
		}
	}
	return n
}

// Goal: a failed sync is forgotten by reopening and by nothing else: not by a change that does not stand; and a first failure,
// met while reopening, is told. Method: a kernel whose sync fails once.
func TestReopenForgetsFailedSyncs(t *testing.T) {
	r := newRig(t, Options{})
	reopen := func() (commit, abort func(*blockcore.Task), err error) {
		err = r.ctx.Do(func(t *blockcore.Task) (err error) {
			commit, abort, err = r.f.PrepareReopen(t, r.f.options)
			return err
		})
		return commit, abort, err
	}
	do := func(fn func(*blockcore.Task)) {
		require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error { fn(t); return nil }))
	}
	*r.system = faulty{syncErr: unix.EIO}
	_, _, err := reopen()
	require.ErrorIs(t, err, unix.EIO, "the flush before reopening tells")
	r.requireDamaged()
	_, abort, err := reopen()
	require.NoError(t, err)
	require.NoError(t, r.ctx.Do(r.f.Flush))
	do(abort)
	r.requireDamaged()
	commit, _, err := reopen()
	require.NoError(t, err)
	do(commit)
	require.NoError(t, r.ctx.Do(r.f.Flush))
	require.NoError(t, r.write(512, blockcore.WriteFUA))
}

// Goal: it is the same file that is reopened, whatever has become of its name, as it is now, unless it has become shorter; method:
// another file takes its name, it grows and shrinks.
func TestReopenTheSameFile(t *testing.T) {
	dir := t.TempDir()
	path := makeFile(t, dir, 64<<10)
	d := newDisk(t, Options{Path: path, ReadOnly: true})
	moved := filepath.Join(dir, "moved")
	require.NoError(t, os.Rename(path, moved))
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, d.reopen(Options{Path: path}))
	require.NoError(t, d.fill(0, 512, 7))
	content, err := os.ReadFile(moved)
	require.NoError(t, err)
	require.Equal(t, byte(7), content[0])
	require.NoError(t, os.Truncate(moved, 128<<10))
	require.NoError(t, d.reopen(Options{Path: path}))
	require.Equal(t, int64(128<<10), d.node.Size())
	require.NoError(t, os.Truncate(moved, 4096))
	require.ErrorContains(t, d.reopen(Options{Path: path}), "the file has become shorter, from 131072 to 4096 bytes")
	require.NoError(t, d.resize(4096))
	require.NoError(t, d.reopen(Options{Path: path}))
}

// Goal: what was guessed stays guarded; method: reopen without a guard, and write what it refuses.
func TestReopenKeepsTheGuard(t *testing.T) {
	r := newRig(t, Options{RequireAlign512: true, Guard: func([]byte) error { return unix.EPERM }})
	require.NoError(t, r.ctx.Do(func(t *blockcore.Task) error {
		commit, _, err := r.f.PrepareReopen(t, Options{Path: r.f.path, Cache: Cache{Writethrough: true}})
		if err == nil {
			commit(t)
		}
		return err
	}))
	require.ErrorIs(t, r.write(512, 0), unix.EPERM)
	require.Equal(t, int64(512), r.f.Limits().Align)
}

// Goal: a disk that is reopened has the locks that QEMU's tools respect, before and after; method: stock qemu-io beside it.
func TestReopenedLocksAsStockToolsSeeThem(t *testing.T) {
	image := makeFile(t, t.TempDir(), 1<<20)
	d := newDisk(t, Options{Path: image, ReadOnly: true})
	const write, read = "qemu-io -f raw -c quit IMAGE", "qemu-img compare -f raw -F raw IMAGE IMAGE"
	require.Equal(t, `Failed to get "write" lock`, stockOutcome(t, write, image))
	require.NoError(t, d.reopen(Options{Path: image, ReadOnly: true, ShareRW: true}))
	require.Equal(t, "ok", stockOutcome(t, write, image))
	holdStock(t, image, "qemu-io", "-f", "raw", "-r") // shares writing
	require.NoError(t, d.reopen(Options{Path: image}))
	require.Equal(t, `Failed to get "write" lock`, stockOutcome(t, write, image))
	require.Equal(t, "ok", stockOutcome(t, read, image))
}
