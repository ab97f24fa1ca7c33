package raw

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: a file becomes longer and shorter under a disk that is open, and what is new reads as zeroes. Method: grow, write into the new
// part, shrink below it, grow again; with and without an offset and O_DIRECT.
func TestResize(t *testing.T) {
	const size, more, piece = 64 << 10, 64 << 10, 4096
	for _, o := range []Options{{}, {Offset: 4096}, {Cache: Cache{Direct: true}}} {
		t.Run(fmt.Sprintf("offset %d direct %t", o.Offset, o.Cache.Direct), func(t *testing.T) {
			ctx := blocktest.NewContext(t, blockcore.EngineAuto)
			o.Path = makeFile(t, t.TempDir(), o.Offset+size)
			f := openIn(t, ctx, o)
			resize := func(to int64) {
				require.NoError(t, ctx.Do(func(task *blockcore.Task) error { return f.Resize(task, to) }))
				require.Equal(t, to, f.Size())
				st, err := os.Stat(o.Path)
				require.NoError(t, err)
				require.Equal(t, o.Offset+to, st.Size())
			}
			last := func(write byte) (read byte) {
				require.NoError(t, ctx.Do(func(task *blockcore.Task) error {
					p := task.Buffers().Get(piece)
					defer task.Buffers().Put(p)
					if write != 0 {
						p[piece-1] = write
						return f.WriteAt(task, p, size+more-piece, 0)
					}
					err := f.ReadAt(task, p, size+more-piece)
					read = p[piece-1]
					return err
				}))
				return read
			}
			resize(size + more)
			require.Zero(t, last(0))
			last(1)
			require.EqualValues(t, 1, last(0))
			resize(size)
			resize(size + more)
			require.Zero(t, last(0))
		})
	}
}

// Goal: a disk that is a window in its file keeps its size. Method: one with a size of its own.
func TestResizeRefusesWindow(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), 8192), SizeBytes: 4096})
	err := ctx.Do(func(task *blockcore.Task) error { return f.Resize(task, 8192) })
	require.ErrorIs(t, err, unix.ENOTSUP)
	require.EqualValues(t, 4096, f.Size())
}
