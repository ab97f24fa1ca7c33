package fio

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestParse checks the figures taken from a report of fio, cut down to what is read,
// and that a failed job and text that is no report are errors.
func TestParse(t *testing.T) {
	const report = `note: something
{"jobs": [{"error": 0,
 "read": {"total_ios": 300, "iops": 30.5, "bw_bytes": 4096, "lat_ns": {"percentile": {"50.000000": 1000, "99.000000": 9000}}},
 "write": {"total_ios": 100, "iops": 10, "bw_bytes": 1024, "lat_ns": {"percentile": {"50.000000": 2000, "99.000000": 1000}}}}]}`
	r, err := parse([]byte(report))
	require.NoError(t, err)
	require.Equal(t, Result{Requests: 400, IOPS: 40.5, BytesPerSecond: 5120, P50: 1250, P99: 7000}, r)
	for _, bad := range []string{"", "fio: no such engine", `{"jobs": []}`, `{"jobs": [{"error": 5}]}`, `{"jobs": 7}`} {
		_, err := parse([]byte(bad))
		require.Error(t, err)
	}
}

// TestArgs checks that a job's numbers reach fio's command line.
func TestArgs(t *testing.T) {
	j := Job{URI: "nbd+unix:///?socket=/s", RW: "randrw", ReadPercent: 70, BlockBytes: 4096, Depth: 32, Conns: 4, RangeBytes: 1 << 20, Duration: 1500 * time.Millisecond}
	require.Subset(t, j.args(), []string{"--uri=nbd+unix:///?socket=/s", "--rw=randrw", "--rwmixread=70", "--bs=4096",
		"--iodepth=32", "--numjobs=4", "--size=1048576", "--runtime=1500ms"})
}
