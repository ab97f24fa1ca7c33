//go:build ganesha

package harness

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a directory is served over NFS, and is no more afterwards. Method: qemu-img reads a file of it by the URL that servers are given.
func TestGaneshaServesTheFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.img")
	require.NoError(t, os.WriteFile(path, make([]byte, 4096), 0o600))
	g, err := startGanesha(t.Context(), dir)
	require.NoError(t, err)
	info := func() error { return run(t.Context(), dir, "", "qemu-img", "info", "-f", "raw", g.url(path)) }
	require.NoError(t, info())
	require.NoError(t, g.stop())
	require.Error(t, info())
}
