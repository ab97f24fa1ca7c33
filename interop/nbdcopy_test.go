package interop_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: libnbd's copier moves a disk in and out, on several connections with many requests each. Method: nbdcopy both
// ways over each storage, the bytes compared; nbdcopy uses four connections because the export says multi-conn.
func TestNbdcopyBothWays(t *testing.T) {
	onEachStorage(t, func(t *testing.T, args []string) {
		source := sparse(t, 48*mib)
		island(t, source, 0, 9*mib)
		island(t, source, 20*mib, 3*mib)
		server := serveRaw(t, sparse(t, 48*mib), args...)
		client(t, "nbdcopy", "--connections=4", "--requests=32", "--flush", source, server.URI()).ok(t)
		out := filepath.Join(t.TempDir(), "out.img")
		client(t, "nbdcopy", "--connections=4", server.URI(), out).ok(t)
		sameFiles(t, source, out)
	})
}

// Goal: a disk is copied between two of our servers. Method: nbdcopy from one export to another, contents compared.
func TestNbdcopyServerToServer(t *testing.T) {
	source := patterned(t, 16*mib)
	target := sparse(t, 16*mib)
	from, to := serveRaw(t, source, "-r"), serveRaw(t, target)
	client(t, "nbdcopy", "--request-size=1048576", "--destination-is-zero", from.URI(), to.URI()).ok(t)
	to.Stop(t)
	sameFiles(t, source, target)
}

func sameFiles(t *testing.T, want, got string) {
	t.Helper()
	a, err := os.ReadFile(want)
	require.NoError(t, err)
	b, err := os.ReadFile(got)
	require.NoError(t, err)
	require.Equal(t, len(a), len(b), "sizes of %s and %s", want, got)
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("%s and %s differ at byte %d: %#x and %#x", want, got, i, a[i], b[i])
		}
	}
}
