package qcow2

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: zeroes that were asked for with FUA are durable, also where there were zeroes already. Method: a cluster is zeroed, then a part of it with FUA, smaller than
// what can be zeroed by an entry; the disk is synced behind the last write.
func TestZeroesWithFUAStay(t *testing.T) {
	base, err := os.ReadFile(create(t, filepath.Join(scratch(t), "image"), "1M", ""))
	require.NoError(t, err)
	m := &memory{bytes: base, random: rand.New(rand.NewPCG(1, 2)), h: &history{}}
	r := newRig(t)
	file, err := r.graph.AddNode(blockcore.NodeOptions{Name: "memory", Context: r.ctx, Driver: m})
	require.NoError(t, err)
	n, err := put(r.graph, "image", file, Options{})
	require.NoError(t, err)
	r.use(n)
	r.write(0, make([]byte, 64<<10))
	require.NoError(t, r.do(func(t *blockcore.Task, e *blockcore.Edge) error {
		if err := e.WriteZeroes(t, blockcore.Range{Length: 64 << 10}, 0); err != nil {
			return err
		}
		return e.WriteZeroes(t, blockcore.Range{Offset: 512, Length: 512}, blockcore.ZeroFUA)
	}))
	require.NotEmpty(t, m.syncs)
	require.Greater(t, m.syncs[len(m.syncs)-1].begin, m.writes[len(m.writes)-1].end)
	require.True(t, r.image.clean())
}
