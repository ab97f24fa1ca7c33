package report

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: two revisions of a server are compared round by round, and others are left alone. Method: series whose quotients are known.
func TestChanges(t *testing.T) {
	now, then := samples("ours", true, false, 1000, 2), samples("ours@old", false, false, 500, 4)
	then.RevisionOf = "ours"
	then.Samples[2].IOPS, then.Samples[2].CPUus = 1300, now.Samples[2].CPUus
	changes := Changes("w", []Series{now, samples("peer", false, true, 1, 1), then})
	require.Len(t, changes, 1)
	require.Equal(t, Spread{Median: 2, Min: 1, Max: 2}, changes[0].IOPS)
	require.Equal(t, Spread{Median: 0.5, Min: 0.5, Max: 1}, changes[0].CPU)
	alone := then
	alone.Samples = nil
	changes = append(changes, Changes("none", []Series{now, alone})...)
	var b strings.Builder
	require.NoError(t, PrintChanges(&b, changes))
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	require.Equal(t, []string{"w", "ours", "ours@old", "2.00", "1.00..2.00", "0.50", "0.50..1.00"}, strings.Fields(lines[2]))
	require.Equal(t, []string{"none", "ours", "ours@old", "-", "-", "-", "-"}, strings.Fields(lines[3]))
	require.Equal(t, []string{"geometric", "mean", "2.00", "0.50"}, strings.Fields(lines[4]))
	require.NoError(t, PrintChanges(nil, nil))
}
