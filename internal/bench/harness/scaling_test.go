package harness

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/bench/loadgen"
	"nbd-dataplane/internal/bench/report"
	"nbd-dataplane/internal/bench/server"
)

// TestPrintScaling checks that workloads over four connections are compared with their
// twins over one, for our servers only, and that a loss is marked.
func TestPrintScaling(t *testing.T) {
	modes := []loadgen.Mode{loadgen.Read, loadgen.Write}
	var out strings.Builder
	o := Options{Out: &out}
	o.Workloads = append(random(Load, server.Cached, 1, modes, 32), random(Load, server.Cached, 4, modes, 32)...)
	o.Workloads = append(o.Workloads, random(Load, server.Null, 4, modes[:1], 32)...)
	var all []Comparison
	for i, iops := range []float64{100, 100, 150, 50, 70} {
		all = append(all, Comparison{Workload: o.Workloads[i].Name(), Series: []report.Series{
			{Server: "ours", Ours: true, Samples: []report.Sample{{IOPS: iops}}},
			{Server: "peer", Peer: true, Samples: []report.Sample{{IOPS: iops}}},
		}})
	}
	require.NoError(t, printScaling(o, all))
	require.Equal(t, `load/cached/4k-randread-d32-c4: ours reaches 1.50 times the IOPS of one connection
load/cached/4k-randwrite-d32-c4: ours reaches 0.50 times the IOPS of one connection !>=1
`, out.String())
}
