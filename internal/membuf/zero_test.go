package membuf

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: AllZero finds a single set byte anywhere; method: every position of lengths around the word size.
func TestAllZero(t *testing.T) {
	for n := range 70 {
		p := make([]byte, n)
		require.True(t, AllZero(p), "%d bytes", n)
		for i := range p {
			p[i] = 1
			require.False(t, AllZero(p), "byte %d of %d", i, n)
			p[i] = 0
		}
	}
}

// Goal: looking for zeroes costs little beside the write; method: benchmark over 64 KiB.
func BenchmarkAllZero(b *testing.B) {
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if !AllZero(p) {
			b.Fatal("not zero")
		}
	}
}
