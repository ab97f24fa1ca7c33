package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: the man pages say what --help says. Method: they are generated anew, and compared; `make docs` puts them right.
func TestManPagesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "go", "run", "-tags", "tools", ".", "man", dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, pages(t, dir), pages(t, "../../docs/man"))
}

// pages are the files of a directory.
func pages(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	all := map[string]string{}
	for _, e := range entries {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		all[e.Name()] = string(p)
	}
	return all
}
