package harness

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/bench/server"
)

// Goal: each server gets a chain of its own, whole and with the contents of the file that all others serve, and an empty image is a new one each
// time; method: make both for two servers and have qemu-img look.
func TestDisks(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	raw, err := createImage(filepath.Join(dir, "disk.img"), testBytes)
	require.NoError(t, err)
	kinds := []server.Kind{{Name: "one"}, {Name: "two"}}
	d := disks{layout: Chain4, dir: filepath.Join(dir, "chain"), raw: raw}
	require.NoError(t, d.create(ctx, kinds))
	require.NoError(t, d.prepare(kinds))
	for _, k := range kinds {
		require.NoError(t, run(ctx, dir, "", "qemu-img", "check", "-q", d.top(k)))
		files, err := os.ReadDir(filepath.Dir(d.top(k)))
		require.NoError(t, err)
		require.Len(t, files, 5)
	}
	require.NoError(t, run(ctx, dir, "", "qemu-img", "compare", "-q", d.top(kinds[0]), d.top(kinds[1])))
	require.EqualValues(t, testBytes, d.sizeBytes())
	require.NoError(t, d.remove())
	require.NoDirExists(t, d.dir)
}

// Goal: every workload on qcow2 has a layout, a name of its own and a target; method: go through them.
func TestQcow2Matrix(t *testing.T) {
	names := map[string]bool{}
	for _, w := range qcow2Matrix() {
		require.Contains(t, layouts, w.Layout)
		require.False(t, names[w.Name()], w.Name())
		names[w.Name()] = true
		require.GreaterOrEqual(t, w.Target().IOPSRatioMin, 1.1)
		require.LessOrEqual(t, w.rule().stepBytes*int64(w.Depth), layouts[w.Layout].sizeBytes)
	}
	require.True(t, names["load/qcow2-chain16/4k-randread-d32-c1"])
}
