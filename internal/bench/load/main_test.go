package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/bench/dummy"
)

// TestRun checks the command from its flags to its figures, in both forms of output,
// against the dummy server.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- dummy.New(4 << 20).Serve(ln) }()
	args := []string{"-uri", "nbd+unix:///?socket=" + path, "-bs", "8k", "-range", "1m", "-depth", "4", "-conns", "2", "-requests", "500", "-warmup", "0.01"}
	var text, object bytes.Buffer
	require.NoError(t, run(args, &text, io.Discard))
	require.Contains(t, text.String(), "500 reads, 0 writes")
	require.NoError(t, run(append(args, "-rw", "write", "-json"), &object, io.Discard))
	var figures map[string]float64
	require.NoError(t, json.Unmarshal(object.Bytes(), &figures))
	require.EqualValues(t, 500, figures["writes"])
	require.NoError(t, ln.Close())
	require.NoError(t, <-done)
}

// TestBadArguments checks that what cannot be understood is refused.
func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-rw", "erase"}, {"-bs", "x"}, {"-bs", "-4k"}, {"-range", "99999999999g"}, {"-nothing"}, {}} {
		require.Error(t, run(args, io.Discard, io.Discard), "%q", args)
	}
}
