package raw

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/imagelock"
)

// fakeLocks answers the two calls from a script.
type fakeLocks struct {
	setErr  error
	foreign map[int64]bool // bytes that another process has locked
	taken   []int64
}

func (f *fakeLocks) set(_ int, l *unix.Flock_t) error {
	f.taken = append(f.taken, l.Start)
	return f.setErr
}

func (f *fakeLocks) probe(_ int, l *unix.Flock_t) error {
	l.Type = unix.F_UNLCK
	if f.foreign[l.Start] {
		l.Type = unix.F_RDLCK
	}
	return nil
}

// Goal: the bytes taken are QEMU's and conflicts are told in QEMU's words; method: a table over who has what.
//
// Scenarios: T-L1.
func TestLockBytes(t *testing.T) {
	for _, c := range []struct {
		name    string
		o       Options
		foreign int64
		taken   []int64
		err     string
	}{
		{name: "exclusive", taken: []int64{100, 101, 201, 203}},
		{name: "as qemu-nbd", o: Options{ShareRW: true}, taken: []int64{100, 101, 203}},
		{name: "read-only", o: Options{ReadOnly: true}, taken: []int64{100, 201, 203}},
		{name: "read-only as qemu-nbd", o: Options{ReadOnly: true, ShareRW: true}, taken: []int64{100, 203}},
		{name: "another one writes", foreign: 101, err: `Failed to get shared "write" lock`},
		{name: "another one denies writing", foreign: 201, err: `Failed to get "write" lock`},
		{name: "another one denies reading", foreign: 200, err: `Failed to get "consistent read" lock`},
		{name: "another one resizes", foreign: 103, err: `Failed to get shared "resize" lock`},
		{name: "another one denies resizing", foreign: 203},
		{name: "another one reads", foreign: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			ops := &fakeLocks{foreign: map[int64]bool{c.foreign: true}}
			err := widenLocks(ops, 0, "a.img", imagelock.Set{}, c.o.locks())
			if c.err == "" {
				require.NoError(t, err)
			} else {
				var conflict *imagelock.ConflictError
				require.ErrorAs(t, err, &conflict)
				require.Equal(t, c.err, conflict.Message())
				require.Equal(t, "Is another process using the image [a.img]?", conflict.Hint())
			}
			if c.taken != nil {
				require.ElementsMatch(t, c.taken, ops.taken)
			}
		})
	}
}

// Goal: a file system without locks is served with a warning, unless locks were insisted on; method: a kernel that
// knows none.
func TestLocksUnsupported(t *testing.T) {
	path := makeFile(t, t.TempDir(), 512)
	fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC)
	require.NoError(t, err)
	defer unix.Close(fd)
	var warnings []string
	o := Options{Path: path, Warn: func(s string) { warnings = append(warnings, s) }}
	lockFD, err := takeLocks(&o, &fakeLocks{setErr: unix.ENOLCK}, fd)
	require.NoError(t, err)
	require.Equal(t, -1, lockFD)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], path)
	o.Locking = imagelock.On
	_, err = takeLocks(&o, &fakeLocks{setErr: unix.ENOLCK}, fd)
	require.ErrorIs(t, err, unix.ENOLCK)
	o.Locking = imagelock.Off
	lockFD, err = takeLocks(&o, nil, fd)
	require.NoError(t, err)
	require.Equal(t, -1, lockFD)
}

// Goal: two of our own disks on one file conflict as the permissions say, in one process too, and Close gives the locks
// back; method: open a second one beside each kind of first one.
func TestLocksBetweenOurselves(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	rw, ro := Options{}, Options{ReadOnly: true}
	shared, sharedRO := Options{ShareRW: true}, Options{ReadOnly: true, ShareRW: true}
	forced := Options{ReadOnly: true, ForceShare: true}
	for _, c := range []struct {
		name          string
		first, second Options
		err           string
	}{
		{"two writers", rw, rw, `"write" lock`},
		{"writer and reader", rw, ro, `"write" lock`},
		{"writer and reader by force", rw, forced, ""},
		{"writer and unlocked writer", rw, Options{Locking: imagelock.Off}, ""},
		{"reader and writer", ro, rw, `"write" lock`},
		{"two readers", ro, ro, ""},
		{"two sharing writers", shared, shared, ""},
		{"sharing writer and writer", shared, rw, `"write" lock`},
		{"sharing writer and sharing reader", shared, sharedRO, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := makeFile(t, t.TempDir(), 4096)
			c.first.Path, c.second.Path = path, path
			first := mustOpen(t, c.first)
			second, err := Open(c.second)
			if c.err == "" {
				require.NoError(t, err)
				require.NoError(t, ctx.Do(second.Close))
			} else {
				require.ErrorContains(t, err, c.err)
			}
			require.NoError(t, ctx.Do(first.Close))
			second, err = Open(c.second)
			require.NoError(t, err, "after the first one was closed")
			require.NoError(t, ctx.Do(second.Close))
		})
	}
}
