package raw

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
	"nbd-dataplane/internal/imagelock"
)

// Goal: what cannot be served is refused in one line that names the file and the remedy, and nothing is left behind;
// method: a table of bad files and options.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	disk := makeFile(t, dir, 8192)
	require.NoError(t, unix.Mkfifo(at("fifo"), 0o600))
	listener, err := net.Listen("unix", at("socket"))
	require.NoError(t, err)
	defer listener.Close()
	require.NoError(t, os.WriteFile(at("text"), make([]byte, 1000), 0o500))
	require.NoError(t, os.Symlink(at("nowhere"), at("loose")))
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"missing", Options{Path: at("none")}, "no such file or directory; create the file first"},
		{"directory", Options{Path: dir}, "it is a directory; give the path"},
		{"fifo", Options{Path: at("fifo")}, "it is a FIFO; give the path"},
		{"socket", Options{Path: at("socket")}, "it is a socket; give the path"},
		{"character device", Options{Path: "/dev/null"}, "it is a character device; give the path"},
		{"no name", Options{}, "no file name"},
		{"read-only file system", Options{Path: "/proc/self/limits/x"}, "not a directory"},
		{"force-share", Options{Path: disk, ForceShare: true}, "only be used with read-only"},
		{"native", Options{Path: disk, AIO: AIONative}, "use cache=none"},
		{"detect-zeroes", Options{Path: disk, DetectZeroes: DetectUnmap}, "discard operation to unmap"},
		{"link that leads nowhere", Options{Path: at("loose"), CreateBytes: 512}, "file exists; it is a link that leads nowhere"},
		{"new and read-only", Options{Path: at("none"), CreateBytes: 512, ReadOnly: true}, "cannot be read-only"},
		{"no directory for a new file", Options{Path: at("no/file"), CreateBytes: 512}, "no such file"},
		{"new file too large", Options{Path: at("large"), CreateBytes: 1 << 62}, "set the size"},
		{"offset behind the end", Options{Path: disk, Offset: 8193}, "offset 8193 is behind the end at 8192"},
		{"size behind the end", Options{Path: disk, Offset: 4096, SizeBytes: 4608}, "size 4608 at offset 4096 is behind"},
		{"size odd", Options{Path: disk, SizeBytes: 4097}, "not a multiple of 512"},
		{"offset odd with O_DIRECT", Options{Path: disk, Offset: 100, Cache: Cache{Direct: true}}, "offset 100 is not a multiple of"},
		{"negative offset", Options{Path: disk, Offset: -1}, "negative"},
		{"negative size", Options{Path: disk, SizeBytes: -1}, "negative"},
		{"negative new size", Options{Path: disk, CreateBytes: -1}, "negative"},
		{"O_DIRECT on a file system without", Options{Path: "/proc/self/limits", ReadOnly: true, Cache: Cache{Direct: true}}, "does not support O_DIRECT; use cache=writeback"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := names(t, dir)
			_, err := Open(c.o)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, "open "+c.o.Path)
			require.NotContains(t, err.Error(), "\n")
			require.Equal(t, before, names(t, dir))
		})
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Goal: errors of open(2) get their remedy; method: the errors as they come, since root may open anything.
func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		o    Options
		want string
	}{
		{unix.EACCES, Options{}, "open it read-only"},
		{unix.EPERM, Options{}, "open it read-only"},
		{&fs.PathError{Op: "stat", Path: "x", Err: unix.EACCES}, Options{ReadOnly: true}, "permission denied; change its mode, or that of its directory"},
		{unix.EROFS, Options{}, "read-only file system; open it read-only"},
		{unix.EINVAL, Options{Cache: Cache{Direct: true}}, "use cache=writeback"},
		{unix.EBUSY, Options{}, "is it mounted"},
		{unix.ELOOP, Options{}, "too many levels"},
	} {
		require.ErrorContains(t, explain(&c.o, c.err), c.want)
	}
	require.NoError(t, explain(&Options{}, nil))
	for err, want := range map[error]string{
		unix.EACCES: "permission denied to make the file; choose a directory",
		unix.EROFS:  "read-only file system to make the file; choose a directory",
		unix.EEXIST: "a link that leads nowhere",
		unix.ENOSPC: "no space left on device",
	} {
		require.ErrorContains(t, explainMaking(&Options{CreateBytes: 1}, err), want)
	}
	require.NoError(t, explainMaking(&Options{}, nil))
}

// Goal: sizes (SZ-10) are rounded as qemu-nbd rounds them and to what O_DIRECT needs; method: a table, with the alignment given.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		name       string
		o          Options
		d          device
		want       int64
		wantsAlign int64
	}{
		{"empty", Options{}, device{sizeBytes: 0, sectorBytes: 1}, 0, 1},
		{"one byte", Options{}, device{sizeBytes: 1, sectorBytes: 1}, 512, 1},
		{"even", Options{}, device{sizeBytes: 1024, sectorBytes: 1}, 1024, 1},
		{"odd", Options{}, device{sizeBytes: 1048676, sectorBytes: 1}, 1049088, 1},
		{"offset", Options{Offset: 512}, device{sizeBytes: 1048676, sectorBytes: 1}, 1048576, 1},
		{"offset odd", Options{Offset: 100}, device{sizeBytes: 1 << 20, sectorBytes: 1}, 1 << 20, 1},
		{"offset at the end", Options{Offset: 1024}, device{sizeBytes: 1024, sectorBytes: 1}, 0, 1},
		{"size", Options{Offset: 100, SizeBytes: 512}, device{sizeBytes: 1024, sectorBytes: 1}, 512, 1},
		{"512 for guessed formats", Options{RequireAlign512: true}, device{sizeBytes: 1000, sectorBytes: 1}, 1024, 512},
		{"device", Options{}, device{sizeBytes: 8192, sectorBytes: 4096, block: true}, 8192, 4096},
		{"odd file on large blocks", Options{}, device{sizeBytes: 4608, sectorBytes: 4096}, 8192, 4096},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := placeWindow(&c.o, -1, c.d)
			require.NoError(t, err)
			require.Equal(t, c.want, w.sizeBytes)
			require.Equal(t, c.wantsAlign, w.alignment)
		})
	}
	_, err := placeWindow(&Options{}, -1, device{sizeBytes: 1<<63 - 1, sectorBytes: 1})
	require.ErrorIs(t, err, unix.EFBIG)
}

// Goal: probing finds the smallest alignment that the kernel takes, and trusts no empty file; method: kernels of
// all kinds.
func TestProbeAlign(t *testing.T) {
	for _, needs := range []int{1, 512, 1024, 2048, 4096} {
		align, err := probeAlign(func(p []byte) error {
			if len(p)%needs != 0 {
				return unix.EINVAL
			}
			return nil
		}, device{sizeBytes: 1 << 20, sectorBytes: 1})
		require.NoError(t, err)
		require.Equal(t, int64(needs), align)
	}
	align, err := probeAlign(nil, device{})
	require.NoError(t, err)
	require.Equal(t, int64(4096), align)
	_, err = probeAlign(func([]byte) error { return unix.EINVAL }, device{sizeBytes: 1})
	require.ErrorIs(t, err, errNoDirect)
}

// Goal: a missing file is made with the size asked for, and an existing one is left as it is; method: open twice.
func TestCreate(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	path := filepath.Join(t.TempDir(), "new")
	for _, create := range []int64{1 << 20, 1 << 30} {
		f := mustOpen(t, Options{Path: path, CreateBytes: create})
		require.Equal(t, int64(1<<20), f.Size())
		require.NoError(t, ctx.Do(f.Close))
	}
}

// Goal: a read-only disk refuses all changes with EROFS, says so, and needs no right to write; method: every operation
// on a file of mode 0400.
func TestReadOnly(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	path := makeFile(t, t.TempDir(), 4096)
	require.NoError(t, os.Chmod(path, 0o400))
	f := openIn(t, ctx, Options{Path: path, ReadOnly: true, Discard: DiscardUnmap})
	require.True(t, f.Features().ReadOnly)
	require.False(t, f.Features().FastZero)
	r := blockcore.Range{Length: 512}
	for name, request := range map[string]func(*blockcore.Task) error{
		"write":   func(t *blockcore.Task) error { return f.WriteAt(t, make([]byte, 512), 0, 0) },
		"zero":    func(t *blockcore.Task) error { return f.WriteZeroes(t, r, 0) },
		"discard": func(t *blockcore.Task) error { return f.Discard(t, r) },
	} {
		require.ErrorIs(t, ctx.Do(request), unix.EROFS, name)
	}
	require.NoError(t, ctx.Do(f.Flush))
}

// Goal: QEMU's names of modes are read, others refused with the list; method: a table.
func TestParseModes(t *testing.T) {
	for name, want := range map[string]Cache{
		"none": {Direct: true}, "off": {Direct: true}, "writeback": {}, "writethrough": {Writethrough: true},
		"directsync": {Direct: true, Writethrough: true}, "unsafe": {NoFlush: true},
	} {
		got, err := ParseCache(name)
		require.NoError(t, err)
		require.Equal(t, want, got, name)
	}
	parsers := map[string]func(string) error{
		"cache":         func(s string) error { _, err := ParseCache(s); return err },
		"aio":           func(s string) error { _, err := ParseAIO(s); return err },
		"discard":       func(s string) error { _, err := ParseDiscard(s); return err },
		"detect-zeroes": func(s string) error { _, err := ParseDetectZeroes(s); return err },
		"locking":       func(s string) error { _, err := imagelock.ParseMode(s); return err },
	}
	good := map[string]string{
		"cache": "none off writeback writethrough directsync unsafe", "aio": "io_uring native threads",
		"discard": "ignore off unmap on", "detect-zeroes": "off on unmap", "locking": "auto on off",
	}
	for option, parse := range parsers {
		for _, s := range strings.Fields(good[option]) {
			require.NoError(t, parse(s), "%s=%s", option, s)
		}
		require.ErrorContains(t, parse("bogus"), option)
		require.ErrorContains(t, parse("bogus"), "use ")
	}
}
