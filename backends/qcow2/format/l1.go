package format

import "encoding/binary"

// Bits of L1 and L2 entries.
const (
	// FlagCopied: the refcount of what the entry refers to is one, so it may be changed in place.
	FlagCopied uint64 = 1 << 63
	// FlagCompressed: an L2 entry of a compressed cluster.
	FlagCompressed uint64 = 1 << 62
	// FlagZero: an L2 entry, not an extended one, whose cluster reads as zeroes.
	FlagZero uint64 = 1

	// OffsetMask are the bits 9 to 55: a host offset.
	OffsetMask uint64 = 0x00fffffffffffe00
	// refTableMask are the bits 9 to 63.
	refTableMask uint64 = 0xfffffffffffffe00
)

// L1Entry refers to an L2 table.
type L1Entry uint64

// Offset is where the L2 table is; 0 = there is none. It may be unaligned in a corrupt image.
func (e L1Entry) Offset() Host { return Host(uint64(e) & OffsetMask) }

// Copied reports whether the L2 table may be changed in place.
func (e L1Entry) Copied() bool { return uint64(e)&FlagCopied != 0 }

// Reserved returns the bits that ought to be zero.
func (e L1Entry) Reserved() uint64 { return uint64(e) &^ (OffsetMask | FlagCopied) }

// Entry reads an entry of a table. i is inside of it.
func Entry(table []byte, i int) uint64 {
	return binary.BigEndian.Uint64(table[i*EntryBytes:])
}

// SetEntry writes an entry of a table. i is inside of it.
func SetEntry(table []byte, i int, e uint64) {
	binary.BigEndian.PutUint64(table[i*EntryBytes:], e)
}

// RefTableEntry refers to a refcount block.
type RefTableEntry uint64

// Offset is where the block is; 0 = there is none. It may be unaligned, or negative, in a corrupt image.
func (e RefTableEntry) Offset() Host { return Host(uint64(e) & refTableMask) }

// Reserved returns the bits that ought to be zero.
func (e RefTableEntry) Reserved() uint64 { return uint64(e) &^ refTableMask }
