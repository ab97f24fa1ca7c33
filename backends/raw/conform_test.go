package raw

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// makeFile makes a sparse file and returns its path.
func makeFile(t *testing.T, dir string, sizeBytes int64) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "disk")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(sizeBytes))
	require.NoError(t, f.Close())
	return f.Name()
}

// mustOpen opens a disk that the caller closes.
func mustOpen(t *testing.T, o Options) *File {
	t.Helper()
	f, err := Open(o)
	require.NoError(t, err)
	return f
}

// openIn opens a disk and closes it at the end of the test.
func openIn(t *testing.T, ctx *blockcore.AioContext, o Options) *File {
	t.Helper()
	f := mustOpen(t, o)
	t.Cleanup(func() { require.NoError(t, ctx.Do(f.Close)) })
	return f
}

// Goal: a file is a correct disk in every way it can be opened; method: the suite over caching, size, window, zero
// detection and file system.
func TestFileConforms(t *testing.T) {
	const size = 192 << 10
	ext := t.TempDir()
	shm, err := os.MkdirTemp("/dev/shm", "raw-test")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(shm) })
	for _, c := range []struct {
		name string
		dir  string
		size int64
		o    Options
	}{
		{"writeback", ext, size, Options{}},
		{"writeback unmap", ext, size, Options{Discard: DiscardUnmap}},
		{"unsafe odd size", ext, size + 77, Options{Cache: Cache{NoFlush: true}, Discard: DiscardUnmap}},
		{"none", ext, size, Options{Cache: Cache{Direct: true}, Discard: DiscardUnmap}},
		{"none odd size", ext, size + 777, Options{Cache: Cache{Direct: true}, Discard: DiscardUnmap}},
		{"writethrough tmpfs", shm, size, Options{Cache: Cache{Writethrough: true}, Discard: DiscardUnmap}},
		{"directsync tmpfs", shm, size + 5, Options{Cache: Cache{Direct: true, Writethrough: true}}},
		{"window", ext, size + 9999, Options{Offset: 777, SizeBytes: size, Discard: DiscardUnmap}},
		{"offset odd size", ext, size + 9999, Options{Offset: 513, Discard: DiscardUnmap}},
		{"none window native", ext, size + 9999, Options{AIO: AIONative, Offset: 8192, Cache: Cache{Direct: true}, Discard: DiscardUnmap}},
		{"mapped", ext, size, Options{Map: MapAlways, Discard: DiscardUnmap}},
		{"mapped odd size", ext, size + 77, Options{Map: MapAlways}},
		{"mapped offset", ext, size + 9999, Options{Map: MapAlways, Offset: 777, Discard: DiscardUnmap}},
		{"mapped writethrough", ext, size, Options{Map: MapAlways, Cache: Cache{Writethrough: true}}},
		{"mapped detect unmap", ext, size, Options{Map: MapAlways, DetectZeroes: DetectUnmap, Discard: DiscardUnmap}},
		{"mapped unsafe tmpfs", shm, size + 5, Options{Map: MapAlways, Cache: Cache{NoFlush: true}, Discard: DiscardUnmap}},
		{"detect on", ext, size, Options{DetectZeroes: DetectOn}},
		{"detect unmap tmpfs", shm, size + 1, Options{DetectZeroes: DetectUnmap, Discard: DiscardUnmap}},
		{"guessed format", ext, size + 300, Options{RequireAlign512: true, Discard: DiscardUnmap}},
	} {
		t.Run(c.name, func(t *testing.T) {
			blocktest.TestDriver(t, func(t *testing.T) blocktest.Subject {
				o := c.o
				o.Path = makeFile(t, c.dir, c.size)
				return blocktest.Subject{
					Driver: mustOpen(t, o),
					Reopen: func() blockcore.Driver { return mustOpen(t, o) },
				}
			})
		})
	}
}
