//go:build ganesha

package nfs

import (
	"errors"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/check"
)

// ganeshaRig is a rig whose server is nfs-ganesha.
func ganeshaRig(t *testing.T) *rig {
	t.Helper()
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
	return r
}

// requireNoAllocations holds the process to less than one allocation in twenty requests.
func requireNoAllocations(t *testing.T, before, after *runtime.MemStats, requests int) {
	t.Helper()
	if !raceEnabled && !check.Enabled { // both allocate
		require.Less(t, float64(after.Mallocs-before.Mallocs)/float64(requests), 0.05, "allocations a request")
	}
}

// mixed writes, reads and flushes for so many rounds, and calls half when half of them are over.
func (r *rig) mixed(t *blockcore.Task, rounds int, half func()) error {
	buf := t.Buffers().Get(65536)
	defer t.Buffers().Put(buf)
	for round := range rounds {
		if round == rounds/2 {
			half()
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
	return nil
}

// Goal: the hot path allocates nothing. Method: allocations of the process over many reads and writes with COMMITs of a server in another process.
func TestNothingIsAllocated(t *testing.T) {
	r := ganeshaRig(t)
	const rounds = 500
	var before, after runtime.MemStats
	require.NoError(t, r.do(func(t *blockcore.Task) error {
		err := r.mixed(t, 2*rounds, func() { runtime.ReadMemStats(&before) })
		runtime.ReadMemStats(&after)
		return err
	}))
	requireNoAllocations(t, &before, &after, 3*rounds)
}

// Goal: nor does it with many requests side by side, whose replies are gathered over several connections. Method: the same by 32 Tasks, once to warm up.
func TestNothingIsAllocatedSideBySide(t *testing.T) {
	r := ganeshaRig(t)
	const tasks, rounds = 32, 200
	var before, after runtime.MemStats
	for range 2 {
		runtime.ReadMemStats(&before)
		var all []chan error
		for range tasks {
			all = append(all, r.begin(func(t *blockcore.Task) error { return r.mixed(t, rounds, func() {}) }))
		}
		for _, done := range all {
			require.NoError(t, r.wait(done))
		}
		runtime.ReadMemStats(&after)
	}
	requireNoAllocations(t, &before, &after, 3*tasks*rounds)
	require.NoError(t, r.do(func(*blockcore.Task) error {
		connected := 0
		for _, c := range r.file.conns {
			if c.fd >= 0 {
				connected++
			}
		}
		if connected < 2 {
			return errors.New("there is one connection only")
		}
		return nil
	}))
}
