package loadgen

import "math/bits"

// generator is xorshift64*: three shifts and a multiplication a number, good enough to
// spread offsets.
type generator uint64

// newGenerator returns the generator of one connection of a run.
func newGenerator(seed uint64, conn int) generator {
	g := generator(seed + uint64(conn)*0x9e3779b97f4a7c15)
	if g == 0 {
		g = 0x2545f4914f6cdd1d // zero is the one state it never leaves
	}
	for range 8 {
		g.next()
	}
	return g
}

func (g *generator) next() uint64 {
	x := uint64(*g)
	x ^= x >> 12
	x ^= x << 25
	x ^= x >> 27
	*g = generator(x)
	return x * 0x2545f4914f6cdd1d
}

// below returns a number in [0, n) without a division.
func (g *generator) below(n uint64) uint64 {
	hi, _ := bits.Mul64(g.next(), n)
	return hi
}
