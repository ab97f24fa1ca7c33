package nfsleast

import (
	"bytes"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/backends/nfs/nfstest"
	"nbd-dataplane/internal/bench/loadgen"
)

const testBytes = 1 << 20

// startServer serves a file of zeroes.
func startServer(t *testing.T) (*nfstest.Server, string) {
	t.Helper()
	s := nfstest.Start(t, nfstest.Options{})
	s.Put("/export/disk", nfstest.File{SizeBytes: testBytes})
	return s, s.URL("/export/disk")
}

// Goal: all kinds of calls are made and counted, over one connection and several. Method: a load on the test server, whose calls are counted, too.
func TestLoad(t *testing.T) {
	s, uri := startServer(t)
	for _, spec := range []Spec{
		{BlockBytes: 4096, Depth: 1, Conns: 1},
		{BlockBytes: 4096, Depth: 9, Conns: 4, Write: true, FlushEvery: 3},
		{BlockBytes: 64 << 10, Depth: 4, Conns: 2, Sequential: true},
	} {
		spec.URI = uri
		l, err := Open(spec)
		require.NoError(t, err)
		r, err := l.Run(20 * time.Millisecond)
		l.Close()
		require.NoError(t, err)
		require.Equal(t, spec.Write, r.Writes > 0)
		require.Equal(t, !spec.Write, r.Reads > 0)
		require.Equal(t, spec.FlushEvery > 0, r.Flushes > 0)
		require.Equal(t, (r.Reads+r.Writes)*int64(spec.BlockBytes), r.Bytes)
		require.Equal(t, r.Requests(), r.Latency.TotalCount())
	}
	require.Positive(t, s.Calls(nfstest.Read))
	require.Positive(t, s.Calls(nfstest.Commit))
}

// Goal: what cannot be is told. Method: loads that ask for too much, and a file that is not there.
func TestLoadRefuses(t *testing.T) {
	s, uri := startServer(t)
	for _, spec := range []Spec{{BlockBytes: 1, Depth: 1, Conns: 1}, {BlockBytes: 4096, Depth: 1, Conns: 2}, {BlockBytes: 1 << 20, Depth: 2, Conns: 2}} {
		spec.URI = uri
		_, err := Open(spec)
		require.Error(t, err)
	}
	_, err := Open(Spec{URI: s.URL("/export/none"), BlockBytes: 4096, Depth: 1, Conns: 1})
	require.ErrorContains(t, err, "NFS3ERR_NOENT")
}

// Goal: the relay gives and takes the right bytes, whole rounds at once and long writes, too. Method: our load generator, which verifies what it has written; then the file of
// the server is looked at.
func TestRelay(t *testing.T) {
	s, uri := startServer(t)
	r, err := NewRelay(uri)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- r.Serve(ln) }()
	for _, block := range []int{4096, 128 << 10} {
		for _, mode := range []loadgen.Mode{loadgen.Write, loadgen.Read} {
			l, err := loadgen.Open(loadgen.Spec{
				URI: "nbd+unix:///?socket=" + path, Mode: mode, Sequential: true, BlockBytes: block, Depth: 8, Verify: true, FlushEvery: 5,
			})
			require.NoError(t, err)
			_, err = l.Run(loadgen.Limit{Requests: 400})
			require.NoError(t, err)
			require.NoError(t, l.Close())
		}
	}
	require.NoError(t, ln.Close())
	require.NoError(t, <-served)
	require.False(t, bytes.Equal(make([]byte, testBytes), s.Stable("/export/disk")))
}
