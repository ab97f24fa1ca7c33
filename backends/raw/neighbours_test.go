package raw

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: a file is mapped by itself only while all that the process serves lies on its device. Method: reads that hit the page cache warm a
// view; then a file in memory is opened beside it, and closed again; with --map=on nothing of that counts.
func TestMappingIsShyOfOtherDevices(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineAuto)
	mapped := func(f *File) (is bool) {
		require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
			for range 2 * mapAfter {
				is = f.views.at(t, 0, 4096) != nil
			}
			return nil
		}))
		return is
	}
	for mode, shy := range map[Map]bool{MapAuto: true, MapOn: false} {
		f := openIn(t, ctx, Options{Path: makeFile(t, t.TempDir(), 1<<20), ShareRW: true, Map: mode})
		require.NotNil(t, f.views, "the tests need a file system that can be mapped")
		require.True(t, mapped(f))
		other, err := Open(Options{Path: makeFile(t, "/dev/shm", 1<<20)})
		require.NoError(t, err)
		require.Equal(t, !shy, mapped(f))
		require.NoError(t, ctx.Do(other.Close))
		require.True(t, mapped(f))
	}
}
