package format

import "encoding/binary"

// RefcountBits is the width of a refcount.
func (g Geometry) RefcountBits() uint { return 1 << g.RefcountOrder }

// RefcountMax is the largest refcount.
func (g Geometry) RefcountMax() uint64 { return ^uint64(0) >> (64 - g.RefcountBits()) }

// RefBlockBits is log2 of the number of refcounts in a block.
func (g Geometry) RefBlockBits() uint { return g.ClusterBits + 3 - g.RefcountOrder }

// RefBlockEntries is the number of refcounts in a block.
func (g Geometry) RefBlockEntries() int64 { return 1 << g.RefBlockBits() }

// Refcount reads a refcount of a block. i is inside of it.
func (g Geometry) Refcount(block []byte, i int64) uint64 {
	switch g.RefcountOrder {
	case 0, 1, 2:
		width := g.RefcountBits()
		perByte := int64(8 / width)
		return uint64(block[i/perByte]) >> (uint(i%perByte) * width) & g.RefcountMax()
	case 3:
		return uint64(block[i])
	case 4:
		return uint64(binary.BigEndian.Uint16(block[2*i:]))
	case 5:
		return uint64(binary.BigEndian.Uint32(block[4*i:]))
	}
	return binary.BigEndian.Uint64(block[8*i:])
}

// SetRefcount writes a refcount, at most RefcountMax, of a block. i is inside of it.
func (g Geometry) SetRefcount(block []byte, i int64, n uint64) {
	switch g.RefcountOrder {
	case 0, 1, 2:
		width := g.RefcountBits()
		perByte := int64(8 / width)
		shift := uint(i%perByte) * width
		b := &block[i/perByte]
		*b = *b&^byte(g.RefcountMax()<<shift) | byte(n<<shift)
	case 3:
		block[i] = byte(n)
	case 4:
		binary.BigEndian.PutUint16(block[2*i:], uint16(n))
	case 5:
		binary.BigEndian.PutUint32(block[4*i:], uint32(n))
	default:
		binary.BigEndian.PutUint64(block[8*i:], n)
	}
}
