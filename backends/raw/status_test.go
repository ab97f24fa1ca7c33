package raw

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// mapFromJSON reads the output of qemu-img map.
func mapFromJSON(t *testing.T, text []byte) []blockcore.Extent {
	t.Helper()
	var entries []struct {
		Length     int64
		Zero, Data bool
	}
	require.NoError(t, json.Unmarshal(text, &entries))
	var exts []blockcore.Extent
	for _, e := range entries {
		if e.Data {
			exts = append(exts, dataExtent(e.Length))
		} else {
			exts = append(exts, holeExtent(e.Length))
		}
	}
	return exts
}

// mapOf asks for the whole map in one go.
func mapOf(t *testing.T, ctx *blockcore.AioContext, f *File) []blockcore.Extent {
	t.Helper()
	var exts []blockcore.Extent
	require.NoError(t, ctx.Do(func(t *blockcore.Task) (err error) {
		exts, err = f.BlockStatus(t, blockcore.Range{Length: f.Size()}, nil, 1000)
		return err
	}))
	return exts
}

// countSeeks counts what goes to the kernel.
type countSeeks struct {
	kernel
	n *int
}

func (c countSeeks) seek(fd int, off int64, whence int) (int64, error) {
	*c.n++
	return c.kernel.seek(fd, off, whence)
}

// Goal: a client that walks a long run of data in small steps costs one lookup, and no cached run outlives a hole that we
// made; method: count the lookups of a walk, discard, ask again.
func TestStatusCachesData(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	const size = 1 << 20
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), size), Discard: DiscardUnmap})
	seeks := 0
	f.system = countSeeks{n: &seeks}
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
		p := t.Buffers().Get(size)
		defer t.Buffers().Put(p)
		for i := range p {
			p[i] = 1
		}
		return f.WriteAt(t, p, 0, 0)
	}))
	for off := int64(0); off < size; off += 4096 {
		exts := statusAt(t, ctx, f, off, 4096)
		require.Equal(t, []blockcore.Extent{dataExtent(4096)}, exts)
	}
	require.Equal(t, 2, seeks)
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
		return f.Discard(t, blockcore.Range{Offset: 8192, Length: 4096})
	}))
	require.Equal(t, []blockcore.Extent{holeExtent(4096)}, statusAt(t, ctx, f, 8192, 4096))
}

func statusAt(t *testing.T, ctx *blockcore.AioContext, f *File, off, n int64) []blockcore.Extent {
	t.Helper()
	var exts []blockcore.Extent
	require.NoError(t, ctx.Do(func(t *blockcore.Task) (err error) {
		exts, err = f.BlockStatus(t, blockcore.Range{Offset: off, Length: n}, nil, 8)
		return err
	}))
	return exts
}

// seekScript answers lookups from a function.
type seekScript struct {
	kernel
	answer func(off int64, whence int) (int64, error)
}

func (s seekScript) seek(_ int, off int64, whence int) (int64, error) { return s.answer(off, whence) }

// Goal: odd answers of file systems give a map that is safe and whole; method: scripts of such file systems.
func TestStatusOfOddFileSystems(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	const size = 8192
	for _, c := range []struct {
		name   string
		answer func(off int64, whence int) (int64, error)
		want   []blockcore.Extent
		err    error
	}{
		{"no SEEK_DATA", func(int64, int) (int64, error) { return 0, unix.EINVAL }, []blockcore.Extent{dataExtent(size)}, nil},
		{"nothing but a hole", func(int64, int) (int64, error) { return 0, unix.ENXIO }, []blockcore.Extent{holeExtent(size)}, nil},
		{"data behind us", func(off int64, whence int) (int64, error) {
			if whence == unix.SEEK_DATA {
				return 0, nil
			}
			return size, nil
		}, []blockcore.Extent{dataExtent(size)}, nil},
		{"cut off in between", func(off int64, whence int) (int64, error) {
			if whence == unix.SEEK_DATA && off == 0 {
				return 0, nil
			}
			return 0, unix.ENXIO
		}, []blockcore.Extent{dataExtent(1), holeExtent(size - 1)}, nil},
		{"broken", func(int64, int) (int64, error) { return 0, unix.EIO }, nil, unix.EIO},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), size)})
			f.system = seekScript{answer: c.answer}
			var exts []blockcore.Extent
			err := ctx.Do(func(t *blockcore.Task) (err error) {
				exts, err = f.BlockStatus(t, blockcore.Range{Length: size}, nil, 8)
				return err
			})
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, exts)
		})
	}
}

// Goal: the loop itself answers questions about a few extents of a local file, leaves long walks and slow file systems to a worker, and
// goes back to them after a pause. Method: lookups that say on which thread they are made; one that takes longer than it may; the end of the pause set
// by the test.
func TestStatusInline(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	const size = 1 << 20
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), size)})
	require.True(t, f.device.local, "the tests run on a local file system")
	loop, asked := 0, 0
	var slow time.Duration
	f.system = seekScript{answer: func(off int64, whence int) (int64, error) {
		asked = unix.Gettid()
		for begin := time.Now(); time.Since(begin) < slow; {
		}
		if whence == unix.SEEK_DATA {
			return off + 4096 - off%8192, nil // data in every other block
		}
		return off + 4096, nil
	}}
	inline := func(off int64, count int) bool {
		require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
			loop = unix.Gettid()
			_, err := f.BlockStatus(t, blockcore.Range{Offset: off, Length: size - off}, nil, count)
			return err
		}))
		return asked == loop
	}
	require.True(t, inline(0, 2))
	require.False(t, inline(0, walkInlineMax+1), "a long walk")
	f.walk.until.Store(0) // the first one may have been slow on a machine that is busy
	slow = 2 * paceSlow
	require.True(t, inline(0, 1))
	require.Positive(t, f.walk.until.Load(), "it was slow")
	slow = 0
	f.walk.until.Store(math.MaxInt64) // whatever time it is
	require.False(t, inline(0, 1), "it was slow not long ago")
	f.walk.until.Store(0)
	require.True(t, inline(0, 1), "it is tried again")
	f.device.local = false
	require.False(t, inline(0, 1), "far away")
}
