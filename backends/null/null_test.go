package null

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: the null disk is a driver like any other, except that it forgets; method: the suite.
func TestConforms(t *testing.T) {
	for _, o := range []Options{
		{SizeBytes: 256 << 10},
		{SizeBytes: 256<<10 + 1, ReadZeroes: true},
	} {
		blocktest.TestDriver(t, func(*testing.T) blocktest.Subject {
			return blocktest.Subject{Driver: Open(o), Forgets: true}
		})
	}
}

// Goal: nothing of the buffer that a read is given shows through; method: a buffer full of another client's bytes.
func TestReadsAreZeroes(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	d := Open(Options{})
	require.Equal(t, int64(SizeDefault), d.Size())
	p := bytes.Repeat([]byte("secret"), 100)
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error { return d.ReadAt(t, p, 5) }))
	require.Equal(t, make([]byte, len(p)), p)
}

// Goal: each request takes at least the latency asked for; method: the context's clock before and after each.
func TestLatency(t *testing.T) {
	ctx := blocktest.NewContext(t, blockcore.EngineThreads)
	const latency = 2_000_000
	d := Open(Options{LatencyNS: latency})
	for name, request := range map[string]func(*blockcore.Task) error{
		"read":    func(t *blockcore.Task) error { return d.ReadAt(t, nil, 0) },
		"write":   func(t *blockcore.Task) error { return d.WriteAt(t, nil, 0, 0) },
		"flush":   d.Flush,
		"zero":    func(t *blockcore.Task) error { return d.WriteZeroes(t, blockcore.Range{}, 0) },
		"discard": func(t *blockcore.Task) error { return d.Discard(t, blockcore.Range{}) },
	} {
		var took int64
		require.NoError(t, ctx.Do(func(t *blockcore.Task) error {
			begin := t.Context().Now()
			err := request(t)
			took = int64(t.Context().Now() - begin)
			return err
		}))
		require.GreaterOrEqual(t, took, int64(latency), name)
	}
}
