package raw

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// lockedBytes returns the bytes that somebody has locked, of those that mean something.
func lockedBytes(t *testing.T, path string) []int64 {
	t.Helper()
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	var locked []int64
	for _, at := range bytesOf(imagelock.NewSet(blockcore.PermAll, 0)) {
		is, err := isLocked(kernelLocks{}, fd, at)
		require.NoError(t, err)
		if is {
			locked = append(locked, at)
		}
	}
	return locked
}

// bytesOf returns the bytes that a set stands for.
func bytesOf(s imagelock.Set) (all []int64) {
	for b := range s.Bytes() {
		all = append(all, b.Offset)
	}
	slices.Sort(all)
	return all
}

// user is one user of an image, in so far as it locks.
type user struct {
	fd    int
	locks imagelock.Set
}

func (u *user) change(t *testing.T, path string, uses, shares blockcore.Permissions) error {
	t.Helper()
	to := imagelock.NewSet(uses, shares)
	if err := widenLocks(kernelLocks{}, u.fd, path, u.locks, to); err != nil {
		return err
	}
	narrowLocks(kernelLocks{}, u.fd, u.locks, to)
	u.locks = to
	return nil
}

func newUser(t *testing.T, path string) *user {
	t.Helper()
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC)
	require.NoError(t, err)
	return &user{fd: fd}
}

// T-L1, image-locking/basic. Goal: each user locks the bytes of what it does and does not share, users who get along add theirs, one who
// does not fails and leaves nothing, and closing gives back exactly its own. Method: QEMU's script, on real locks.
func TestImageLockingBasic(t *testing.T) {
	const perm1, perm2 = blockcore.PermWrite | blockcore.PermRead, blockcore.PermResize
	const shared = blockcore.PermAll
	path := makeFile(t, t.TempDir(), 4096)
	first, second, third := newUser(t, path), newUser(t, path), newUser(t, path)
	require.NoError(t, first.change(t, path, perm1, perm1))
	require.Equal(t, []int64{100, 101, 202, 203}, lockedBytes(t, path))
	require.Error(t, third.change(t, path, perm2, shared), "resizing is not shared")
	require.Equal(t, []int64{100, 101, 202, 203}, lockedBytes(t, path))
	require.NoError(t, first.change(t, path, perm1, perm1|perm2))
	require.NoError(t, second.change(t, path, perm2, shared))
	require.Equal(t, []int64{100, 101, 103, 202}, lockedBytes(t, path))
	require.Error(t, third.change(t, path, perm1, shared&^blockcore.PermWrite), "somebody writes")
	require.Equal(t, []int64{100, 101, 103, 202}, lockedBytes(t, path))
	require.NoError(t, unix.Close(first.fd))
	require.Equal(t, []int64{103}, lockedBytes(t, path))
	require.NoError(t, unix.Close(second.fd))
	require.NoError(t, unix.Close(third.fd))
	require.Empty(t, lockedBytes(t, path))
}

// T-L2, image-locking/set-perm-abort. Goal: a change of permissions that fails leaves the locked bytes untouched; method: QEMU's
// script: two users, of whom one asks for what the other does not share, at each step of the way.
func TestImageLockingAbort(t *testing.T) {
	const reads = blockcore.PermRead | blockcore.PermWriteUnchanged
	path := makeFile(t, t.TempDir(), 4096)
	first, second := newUser(t, path), newUser(t, path)
	defer unix.Close(first.fd)
	defer unix.Close(second.fd)
	require.NoError(t, first.change(t, path, reads, blockcore.PermAll))
	require.NoError(t, second.change(t, path, reads, blockcore.PermAll&^(blockcore.PermWrite|blockcore.PermResize)))
	before := lockedBytes(t, path)
	require.Equal(t, []int64{100, 102, 201, 203}, before)
	for _, wanted := range []struct{ uses, shares blockcore.Permissions }{
		{blockcore.PermWrite, blockcore.PermAll},
		{reads | blockcore.PermResize, blockcore.PermAll},
		{reads, blockcore.PermAll &^ blockcore.PermRead},
		{blockcore.PermAll, 0},
	} {
		var conflict *imagelock.ConflictError
		require.ErrorAs(t, first.change(t, path, wanted.uses, wanted.shares), &conflict)
		require.Equal(t, before, lockedBytes(t, path))
		require.Equal(t, imagelock.NewSet(reads, blockcore.PermAll), first.locks)
	}
}
