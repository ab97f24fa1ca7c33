package least

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/bench/loadgen"
)

// Goal: it is a server, one client after the other. Method: a client that expects what it has written, with one request at a time, with many, and
// with long ones that come in pieces.
func TestServes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- New(8 << 20).Serve(ln) }()
	for _, c := range []struct{ block, depth int }{{4096, 1}, {4096, 32}, {1 << 20, 4}} {
		for _, mode := range []loadgen.Mode{loadgen.Write, loadgen.Mixed} {
			l, err := loadgen.Open(loadgen.Spec{
				URI: "nbd+unix:///?socket=" + socket, Mode: mode, Sequential: mode == loadgen.Write, BlockBytes: c.block, Depth: c.depth, Conns: 1, ReadPercent: 70, Verify: true,
			})
			require.NoError(t, err)
			requests := 8 << 20 / int64(c.block)
			if mode == loadgen.Mixed {
				requests = 200 // among which some write, whatever the machine does meanwhile
			}
			r, err := l.Run(loadgen.Limit{Requests: requests})
			require.NoError(t, err)
			require.Positive(t, r.Writes)
			require.NoError(t, l.Close())
		}
	}
	ln.Close()
	require.NoError(t, <-served)
}
