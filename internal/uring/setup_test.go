package uring

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/internal/check"
)

func TestLadder(t *testing.T) {
	// An older kernel gets the best ring it can make: each refuses the flags it does not know.
	table := []struct {
		refused, taken uint32
	}{
		{0, ladder[0]},
		{setupNoSQArray, ladder[1]},
		{setupDeferTaskrun, ladder[2]},
		{setupSingleIssuer, ladder[3]},
		{setupTaskrunFlag, ladder[4]},
		{setupSubmitAll, ladder[5]},
	}
	for _, row := range table {
		var taken uint32
		fd, p, err := climb(Params{Entries: 5, CQEntries: 9}, func(entries uint32, p *setupParams) (int, unix.Errno) {
			require.Equal(t, []uint32{5, 9}, []uint32{entries, p.cqEntries})
			if p.flags&row.refused != 0 {
				return -1, unix.EINVAL
			}
			taken, p.features = p.flags, featuresNeeded
			return 77, 0
		})
		require.NoError(t, err)
		require.Equal(t, 77, fd)
		require.Equal(t, row.taken|setupAlways, p.flags)
		require.Equal(t, taken, p.flags)
	}
}

func TestNewAndClose(t *testing.T) {
	// A ring of each kind has the sizes asked for, rounded up, knows its operations, and is closed once.
	for _, refused := range kernels {
		r, err := newRing(Params{Entries: 5}, refusing(refused))
		require.NoError(t, err)
		require.Zero(t, r.setup.flags&refused)
		sq, cq := r.Entries()
		require.Equal(t, []uint32{8, 16}, []uint32{sq, cq})
		require.True(t, r.Supports(IORING_OP_FALLOCATE))
		require.False(t, r.Supports(255))
		require.NoError(t, r.Close())
		require.ErrorIs(t, r.Close(), os.ErrClosed)
	}
}

func TestOpNames(t *testing.T) {
	// Operations have the kernel's names: the first, the last, and one without.
	require.Equal(t, "NOP", IORING_OP_NOP.String())
	require.Equal(t, "ASYNC_CANCEL", IORING_OP_ASYNC_CANCEL.String())
	require.Equal(t, "RECV", IORING_OP_RECV.String())
	require.Equal(t, "OP_200", Op(200).String())
}

func TestSetupErrors(t *testing.T) {
	// A host that gives no ring says why and what helps: each errno is turned into its error.
	table := []struct {
		errno       unix.Errno
		unavailable bool
		says        string
	}{
		{unix.ENOSYS, true, "use another aio engine"},
		{unix.EPERM, true, "seccomp"},
		{unix.EACCES, true, "seccomp"},
		{unix.EINVAL, true, "Linux 5.11"},
		{unix.ENOMEM, false, "ulimit -l"},
		{unix.EMFILE, false, "ulimit -n"},
		{unix.EIO, false, "set up ring"},
	}
	for _, row := range table {
		_, err := newRing(Params{Entries: 1}, func(uint32, *setupParams) (int, unix.Errno) { return -1, row.errno })
		require.ErrorIs(t, err, row.errno)
		require.ErrorContains(t, err, row.says)
		require.Equal(t, row.unavailable, errors.Is(err, ErrUnavailable))
	}
	err := setupError(unix.EPERM, "2")
	require.ErrorContains(t, err, "kernel.io_uring_disabled is 2: set it to 0")
	require.ErrorIs(t, err, unix.EPERM)

	_, err = newRing(Params{Entries: 1}, func(_ uint32, p *setupParams) (int, unix.Errno) {
		fd, errno := setup(1, p)
		p.features &^= featExtArg
		return fd, errno
	})
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "0x100")

	_, err = New(Params{})
	require.ErrorIs(t, err, unix.EINVAL)
}

func TestRingIsDisabledUntilItsOwnerEnablesIt(t *testing.T) {
	// The thread that calls Enable owns the ring, not the one that made it: made here, enabled there, used here it fails.
	made := make(chan *Ring)
	go func() {
		r, err := New(Params{Entries: 4})
		if err != nil {
			t.Error(err)
		}
		made <- r
	}()
	r := <-made
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if !check.Enabled {
		r.Next().Nop()
		require.ErrorIs(t, r.Submit(), unix.EBADFD)
	}
	require.NoError(t, r.Enable())
	if check.Enabled {
		r.Next().Nop()
	}
	require.NoError(t, r.Submit())
	require.Equal(t, 1, r.Reap(make([]CQE, 2)))

	if r.setup.flags&setupSingleIssuer == 0 {
		require.NoError(t, r.Close())
		return // before Linux 6.0 nobody minds
	}
	other := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer func() {
			if recover() != nil {
				other <- unix.EEXIST // a check build says it earlier than the kernel
			}
		}()
		r.Next().Nop()
		other <- r.Submit()
	}()
	require.ErrorIs(t, <-other, unix.EEXIST)
	require.NoError(t, r.Close())
}
