//go:build check

package membuf

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCheckBuildFindsMisuse(t *testing.T) {
	// A check build finds every wrong Put: each misuse is done once and must panic.
	type front interface {
		Get(int) []byte
		Put([]byte)
	}
	table := []struct {
		name, panics string
		misuse       func(from front)
	}{
		{"put twice", "put twice", func(from front) {
			b := from.Get(4096)
			from.Put(b)
			from.Put(b)
		}},
		{"memory of the Go heap", "foreign memory", func(from front) { from.Put(make([]byte, 8192)) }},
		{"memory of another pool", "foreign memory", func(from front) { from.Put(NewPool(0).Get(4096)) }},
		{"middle of a buffer", "not the start", func(from front) { from.Put(from.Get(8192)[4096:]) }},
		{"capacity cut", "was put as one of", func(from front) {
			b := from.Get(8192)
			from.Put(b[:4096:4096])
		}},
		{"written after Put", "while it was idle", func(from front) {
			b := from.Get(4096)
			from.Put(b)
			b[100] = 1
			from.Get(4096)
		}},
	}
	for _, row := range table {
		for _, door := range []string{"pool", "cache"} {
			t.Run(row.name+"/"+door, func(t *testing.T) {
				p := NewPool(1 << 20)
				var from front = p
				if door == "cache" {
					from = p.NewCache()
				}
				defer func() { require.Contains(t, recover(), row.panics) }()
				row.misuse(from)
			})
		}
	}
}

func TestCheckBuildPoisons(t *testing.T) {
	// In a check build contents are undefined for real: fresh memory and returned memory read as poison.
	p := NewPool(1 << 20)
	for range 2 {
		b := p.Get(70000)
		require.Equal(t, len(b), bytes.Count(b, []byte{poisonNew}))
		clear(b)
		p.Put(b)
	}
	require.NoError(t, p.Close())
}
