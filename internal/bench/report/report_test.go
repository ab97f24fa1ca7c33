package report

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSpreadOf checks median, least and greatest of lists of every shape.
func TestSpreadOf(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{7}, Spread{7, 7, 7}},
		{[]float64{9, 1}, Spread{5, 1, 9}},
		{[]float64{3, 100, 1}, Spread{3, 1, 100}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
	} {
		before := append([]float64(nil), c.values...)
		require.Equal(t, c.want, SpreadOf(c.values))
		require.Equal(t, before, c.values, "the input must stay as it was")
	}
}

// samples builds a series with three rounds around iops.
func samples(server string, ours, peer bool, iops, cpu float64, calls ...float64) Series {
	s := Series{Server: server, Ours: ours, Peer: peer}
	for i, f := range []float64{0.9, 1, 1.3} {
		sample := Sample{Round: i, IOPS: iops * f, MBps: iops * f / 250, P50us: 10, P99us: 20, CPUus: cpu / f}
		if i < len(calls) {
			sample.Syscalls = &calls[i]
		}
		s.Samples = append(s.Samples, sample)
	}
	return s
}

func comparison() []Series {
	return []Series{
		samples("ours", true, false, 200_000, 4, 0.4),
		samples("fast", false, true, 100_000, 12, 4),
		samples("thrifty", false, true, 50_000, 10),
		samples("ceiling", false, false, 900_000, 1),
		{Server: "absent", Peer: true},
	}
}

// TestBestPeer checks that the best of each figure is found among peers only, whoever
// has it.
func TestBestPeer(t *testing.T) {
	require.Equal(t, Best{IOPS: 100_000, CPUus: 10, Fastest: "fast"}, BestPeer(comparison()))
	require.Equal(t, Best{}, BestPeer(comparison()[:1]))
}

// TestRatio checks that a ratio with nothing in it is none.
func TestRatio(t *testing.T) {
	r, ok := Ratio(3, 2)
	require.True(t, ok)
	require.Equal(t, 1.5, r)
	for _, c := range [][2]float64{{0, 2}, {3, 0}, {0, 0}} {
		_, ok := Ratio(c[0], c[1])
		require.False(t, ok)
	}
}

// TestPrint checks the table of a workload against a golden one.
func TestPrint(t *testing.T) {
	var b strings.Builder
	require.NoError(t, Print(&b, "load/4k", comparison()))
	require.Equal(t, `
load/4k
           IOPS         min..max  MB/s  p50 us  p99 us  cpu us/req  calls/req  x IOPS  x cpu  other%
ours     200000   180000..260000   800    10.0    20.0        4.00       0.40    2.00   0.40       0
fast     100000    90000..130000   400    10.0    20.0        12.0       4.00    1.00   1.20       0
thrifty   50000     45000..65000   200    10.0    20.0        10.0          -    0.50   1.00       0
ceiling  900000  810000..1170000  3600    10.0    20.0        1.00          -    9.00   0.10       0
absent        -
`, b.String())
}

// TestJudge checks which targets count as missed, with a table of targets on one
// comparison (2.0 times the IOPS, 0.4 times the CPU, 0.4 calls).
func TestJudge(t *testing.T) {
	all := comparison()
	for _, c := range []struct {
		name   string
		target Target
		missed bool
	}{
		{"none", Target{}, false},
		{"met", Target{IOPSRatioMin: 2, CPURatioMax: 0.5, SyscallsMax: 0.5}, false},
		{"IOPS", Target{IOPSRatioMin: 2.1}, true},
		{"CPU", Target{CPURatioMax: 0.3}, true},
		{"calls", Target{SyscallsMax: 0.3}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.missed, Judge("w", all[0], all, c.target).Missed)
		})
	}
}

// TestPrintVerdicts checks the summary: the count, the mark of a missed target, and that
// a workload without a peer is left out.
func TestPrintVerdicts(t *testing.T) {
	all := comparison()
	var b strings.Builder
	require.NoError(t, PrintVerdicts(&b, []Verdict{
		Judge("met", all[0], all, Target{IOPSRatioMin: 2}),
		Judge("missed", all[0], all, Target{IOPSRatioMin: 3}),
		Judge("alone", all[0], all[:1], Target{IOPSRatioMin: 3}),
	}))
	require.Contains(t, b.String(), "1 of 2 workloads")
	require.Contains(t, b.String(), "2.00 !>=3")
	require.NotContains(t, b.String(), "alone")
}
