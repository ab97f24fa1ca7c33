package main

import (
	"path/filepath"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// TestPlan checks what is measured for some command lines.
func TestPlan(t *testing.T) {
	parse := func(args ...string) flags {
		var f flags
		set := pflag.NewFlagSet("bench", pflag.ContinueOnError)
		f.register(set)
		require.NoError(t, set.Parse(args))
		return f
	}
	all, err := parse().plan()
	require.NoError(t, err)
	require.True(t, all.idle && all.startup)
	require.EqualValues(t, 1<<30, all.options.FileBytes)
	quick, err := parse("--quick").plan()
	require.NoError(t, err)
	require.Less(t, len(quick.options.Workloads), len(all.options.Workloads))
	require.Equal(t, 3, quick.options.Rounds)
	one, err := parse("--quick", "--run", "^startup$", "--servers", "nbdkit,ceiling", "--rounds", "7").plan()
	require.NoError(t, err)
	require.True(t, one.startup && !one.idle)
	require.Empty(t, one.options.Workloads)
	require.Len(t, one.options.Servers, 2)
	require.Equal(t, 7, one.options.Rounds)
	_, err = parse("--run", "(").plan()
	require.Error(t, err)
	two, err := parse("--servers", "nbd-dataplane,nbd-dataplane@v1").plan()
	require.NoError(t, err)
	require.Equal(t, "v1", two.options.Servers[1].Revision)
	require.Equal(t, "nbd-dataplane", two.options.Servers[1].RevisionOf)
	_, err = parse("--servers", "nbd-dataplane@--output=x").plan()
	require.Error(t, err)
	_, err = parse("--servers", "nbdkit@v1").plan()
	require.Error(t, err)
	_, err = parse("--servers", "apache").plan()
	require.ErrorContains(t, err, `"apache"`)
}

// TestSave checks that results reach their file and that no name means no file.
func TestSave(t *testing.T) {
	require.NoError(t, results{}.save(""))
	path := filepath.Join(t.TempDir(), "r.json")
	require.NoError(t, results{Rounds: 3}.save(path))
	require.FileExists(t, path)
	require.Error(t, results{}.save(filepath.Join(t.TempDir(), "no", "r.json")))
}
