package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/nbd"
)

// Goal: a list of rules in a file holds as it is now, wherever the server has gone meanwhile, and lets nobody in while it cannot be read; with
// refresh=off it holds as it was. Method: a file that is replaced, spoilt, removed and repaired, and somebody whom it names.
func TestListFileIsReadAgain(t *testing.T) {
	t.Chdir(t.TempDir())
	file, err := filepath.Abs("rules")
	require.NoError(t, err)
	write := func(text string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	allow := `{"rules":[{"match":"CN=alice","policy":"allow"}]}`
	write(allow)
	refreshed, err := openListFile("rules", true)
	require.NoError(t, err)
	kept, err := openListFile("rules", false)
	require.NoError(t, err)
	t.Chdir("/")
	alice := &nbd.Peer{TLS: true, DN: "CN=alice"}
	for _, step := range []struct {
		change func()
		lets   bool
	}{
		{func() {}, true},
		{func() { write(`{"rules":[{"match":"CN=alice","policy":"deny"}]}`) }, false},
		{func() { write(allow) }, true},
		{func() { write(`{"rules":[{"match":`) }, false},
		{func() { write(allow) }, true},
		{func() { require.NoError(t, os.Remove(file)) }, false},
		{func() { write(allow) }, true},
	} {
		step.change()
		if step.lets {
			require.NoError(t, refreshed.Authorize(alice))
		} else {
			require.ErrorIs(t, refreshed.Authorize(alice), nbd.ErrDenied)
		}
		require.NoError(t, kept.Authorize(alice), "refresh=off")
	}
	_, err = openListFile("/none", true)
	require.Error(t, err)
}
