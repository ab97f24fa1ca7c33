package qcow2

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// visit has the cleaner look through the caches and returns how many pieces are left of L2 tables.
func (r *rig) visit() (left int) {
	r.t.Helper()
	require.NoError(r.t, r.ctx.Do(func(t *blockcore.Task) error {
		r.image.cleanCaches(t)
		left = len(r.image.l2.pieces)
		return nil
	}))
	return left
}

// pending reports whether another visit is to come.
func (r *rig) pending() (is bool) {
	r.t.Helper()
	require.NoError(r.t, r.ctx.Do(func(*blockcore.Task) error {
		is = r.image.cleaner.chore != nil && r.image.cleaner.chore.Pending()
		return nil
	}))
	return is
}

// Goal: metadata that nobody has used between two visits of the cleaner is given back, what was used stays, and what is not on disk is not lost; the timer
// exists while there is something to clean, through a drained section too. Method: an image with four L2 tables, visited by hand.
func TestCleanerDropsWhatNobodyUses(t *testing.T) {
	const span = 32 << 20 // of an L2 table
	path := create(t, filepath.Join(scratch(t), "disk"), "128M", "cluster_size=16k")
	for at := range 4 {
		tool(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 7 "+[]string{"0", "32M", "64M", "96M"}[at]+" 4k", path)
	}
	r := open(t, path, Options{})
	require.False(t, r.pending(), "nothing is in memory yet")
	for at := range int64(4) {
		require.EqualValues(t, 7, r.read(at*span, 512)[0])
	}
	require.True(t, r.pending())
	require.Equal(t, 4, r.visit(), "all of it was used before the first visit")
	r.read(span, 512)
	section, err := r.graph.Drain(context.Background(), blockcore.DrainOptions{Why: "test"})
	require.NoError(t, err)
	require.True(t, r.pending(), "it waits for the end of the section")
	section.End()
	require.True(t, r.pending())
	require.Equal(t, 1, r.visit())
	r.write(2*span+(64<<10), []byte("not on disk yet"))
	r.visit()
	require.Equal(t, 1, r.visit(), "what has changed stays")
	require.Equal(t, "not on disk yet", string(r.read(2*span+(64<<10), 15)))
	require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error { return e.Flush(t) }))
	r.visit()
	require.Zero(t, r.visit())
	r.close()
	checkImage(t, path)
}

// Goal: the interval is QEMU's, and can be switched off. Method: its values.
func TestCleanerInterval(t *testing.T) {
	number := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		seconds *int64
		want    time.Duration
		wrong   string
	}{
		{nil, 10 * time.Minute, ""}, {number(0), 0, ""}, {number(5), 5 * time.Second, ""},
		{number(1 << 32), 0, "Cache clean interval too big"}, {number(-1), 0, "Cache clean interval too big"},
	} {
		got, err := cleanInterval(c.seconds)
		if c.wrong != "" {
			require.ErrorContains(t, err, c.wrong)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
	path := create(t, filepath.Join(scratch(t), "disk"), "1M", "")
	r := open(t, path, Options{CacheCleanInterval: number(0)})
	r.read(0, 512)
	r.write(0, []byte("x"))
	require.False(t, r.pending())
}
