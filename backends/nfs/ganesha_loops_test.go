//go:build ganesha

package nfs

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/check"
)

// Goal: the hot path allocates nothing. Method: allocations of the process over many reads and writes with COMMITs of a server in another process.
func TestNothingIsAllocated(t *testing.T) {
	g := nfstest.StartGanesha(t, t.TempDir())
	o, _, err := ParseURL(g.StockURL("disk"))
	require.NoError(t, err)
	_, err = Create(o, diskBytes)
	require.NoError(t, err)
	r := &rig{t: t, health: make(chan Health, 10)}
	r.ctx, err = blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name()})
	require.NoError(t, err)
	t.Cleanup(r.ctx.Close)
	r.file, err = Open(o)
	require.NoError(t, err)
	t.Cleanup(r.close)
	const rounds = 500
	var before, after runtime.MemStats
	require.NoError(t, r.do(func(t *blockcore.Task) error {
		buf := t.Buffers().Get(65536)
		defer t.Buffers().Put(buf)
		for round := range 2 * rounds {
			if round == rounds {
				runtime.ReadMemStats(&before)
			}
			off := int64(round%16) * 4096
			if err := r.file.WriteAt(t, buf[:4096], off, 0); err != nil {
				return err
			}
			if err := r.file.ReadAt(t, buf[:4096], off+65536); err != nil {
				return err
			}
			if err := r.file.ReadAt(t, buf, 131072); err != nil {
				return err
			}
			if round%16 == 15 {
				if err := r.file.Flush(t); err != nil {
					return err
				}
			}
		}
		runtime.ReadMemStats(&after)
		return nil
	}))
	if !raceEnabled && !check.Enabled { // both allocate
		require.Less(t, float64(after.Mallocs-before.Mallocs)/(3*rounds), 0.05, "allocations a request")
	}
}
