package harness

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: the workloads on NFS have names of their own, and targets. Method: go through them.
func TestNFSMatrix(t *testing.T) {
	names := map[string]bool{}
	for _, w := range nfsMatrix() {
		require.False(t, names[w.Name()], w.Name())
		names[w.Name()] = true
		require.Equal(t, 0.5, w.Target().CPURatioMax)
	}
	require.True(t, names["load/nfs/4k-randwrite-flush16-d32-c1"])
	require.True(t, names["load/nfs/256k-seqread-d4-c1"])
}
