package nbd

import (
	"encoding/binary"

	"nbd-dataplane/internal/membuf"
)

// Zeroes in the answer to a READ are told as a hole where that pays: looking for them ends at the first byte that
// is not zero, a hole costs 32 bytes instead of the data. NBD proto.md, "Structured replies".
const (
	// sparseMin is the shortest READ that is searched, in bytes.
	sparseMin = 64 << 10
	// sparseUnit is the granularity of holes, in bytes: coarse, so that chunks stay few.
	sparseUnit = 32 << 10
)

// replySparse answers a READ by chunks of data and of holes, in order; the last one is DONE.
func (c *Conn) replySparse(q *request, buf []byte, charge int64) {
	at := 0
	for at < len(buf) {
		end, zero := sameKind(buf, at, q.header.offset)
		var flags ChunkFlags
		if end == len(buf) {
			flags = ChunkFlagDone
		}
		offset := q.header.offset + uint64(at)
		if zero {
			p := c.chunk(q, flags, ChunkOffsetHole, 12, 12)
			binary.BigEndian.PutUint64(p, offset)
			binary.BigEndian.PutUint32(p[8:], uint32(end-at))
		} else {
			p := c.chunk(q, flags, ChunkOffsetData, 8+end-at, 8)
			binary.BigEndian.PutUint64(p, offset)
			c.data(buf[at:end], nil, 0)
		}
		at = end
	}
	c.giveBack(buf, charge)
}

// sameKind returns the end of the units from at on that are all zeroes or all not, as far as one chunk may go.
// offset is that of buf in the export.
func sameKind(buf []byte, at int, offset uint64) (end int, zero bool) {
	end = unitEnd(buf, at, offset)
	zero = membuf.AllZero(buf[at:end])
	for end < len(buf) {
		next := unitEnd(buf, end, offset)
		if next-at > payloadAdvertised || membuf.AllZero(buf[end:next]) != zero {
			break
		}
		end = next
	}
	return end, zero
}

// unitEnd returns the end of the unit that begins at at. Units end at round places of the export.
func unitEnd(buf []byte, at int, offset uint64) int {
	into := int((offset + uint64(at)) % sparseUnit)
	return min(at+sparseUnit-into, len(buf))
}

// giveBack has buf given back, and charge ended, when everything that is in the outbox now has left.
func (c *Conn) giveBack(buf []byte, charge int64) {
	last := &c.out.segments[len(c.out.segments)-1]
	if last.buffer == nil && len(last.memory) > 0 {
		last.buffer, last.charge = buf, charge
	}
}
