package nbd

import (
	"encoding/binary"
	"math"
	"slices"
	"unsafe"

	"nbd-dataplane/blockcore"
)

// Metadata contexts. NBD proto.md, "Metadata querying"; QEMU docs/interop/nbd.txt.
const (
	ContextAllocation      = "base:allocation"
	ContextAllocationDepth = "qemu:allocation-depth"
)

// blockStatus answers with one chunk for each context.
func (q *request) blockStatus(t *blockcore.Task) error {
	c := q.conn
	r, contexts, err := q.statusArguments()
	if err != nil {
		return err
	}
	limit := statusExtentsMax
	if q.header.flags&CmdFlagReqOne != 0 {
		limit = 1
	}
	// The map is the same for all contexts but those of bitmaps, and asked for once.
	var exts []blockcore.Extent
	if slices.ContainsFunc(contexts, func(m metaContext) bool { return !m.isBitmap() }) {
		if exts, err = q.mapRange(t, r, limit); err != nil {
			return err
		}
	}
	if c.broken {
		return nil
	}
	before := c.out.held
	for i, m := range contexts {
		var flags ChunkFlags
		if i == len(contexts)-1 {
			flags = ChunkFlagDone
		}
		if m.isBitmap() {
			c.replyStatus(q, flags, m, c.bitmapRuns(m, r, limit))
		} else {
			c.replyStatus(q, flags, m, c.runs(m, exts, limit))
		}
	}
	c.charge(q, int64(c.out.held-before))
	return nil
}

// statusPayload is the length of a payload that names n contexts.
func statusPayload(n int) uint64 { return 8 + 4*uint64(n) }

// extentUsual is the shortest extent to expect, in bytes.
const extentUsual = 512

// statusCost is what the map of a range and the reply made of it may hold, in bytes.
func (c *Conn) statusCost(h *header) int64 {
	extents := int64(statusExtentsMax)
	if h.flags&CmdFlagPayloadLen == 0 {
		extents = int64(min(uint64(extents), h.length/extentUsual+1))
	}
	each := int64(8)
	if c.style == styleExtended {
		each = 16
	}
	return extents * (int64(unsafe.Sizeof(blockcore.Extent{})) + each*int64(len(c.agreed.contexts)))
}

// statusArguments returns the range and the contexts that are asked for: those negotiated, or with PAYLOAD_LEN
// those in the payload. Extended headers, "NBD_CMD_BLOCK_STATUS".
func (q *request) statusArguments() (blockcore.Range, []metaContext, error) {
	c := q.conn
	if q.header.flags&CmdFlagPayloadLen == 0 {
		return q.bytes(), c.agreed.contexts, nil
	}
	p := q.payload
	if uint64(len(p)) < statusPayload(1) || (len(p)-8)%4 != 0 {
		return blockcore.Range{}, nil, &clientError{EInval, "BLOCK_STATUS with a malformed payload"}
	}
	length := binary.BigEndian.Uint64(p)
	size := c.export.size()
	if length == 0 || q.header.offset > size || length > size-q.header.offset {
		return blockcore.Range{}, nil, &clientError{EInval, "BLOCK_STATUS goes past the end"}
	}
	if c.unaligned(q.header.offset | length) {
		return blockcore.Range{}, nil, &clientError{EInval, "BLOCK_STATUS of a range that is not a multiple of the minimum block size"}
	}
	contexts, err := c.chosen(p[8:])
	return blockcore.Range{Offset: int64(q.header.offset), Length: int64(length)}, contexts, err
}

// chosen looks up the contexts with the ids in p.
func (c *Conn) chosen(p []byte) ([]metaContext, error) {
	var contexts []metaContext
	for ; len(p) > 0; p = p[4:] {
		id := binary.BigEndian.Uint32(p)
		m, ok := findContext(c.agreed.contexts, id)
		_, twice := findContext(contexts, id)
		if !ok || twice {
			return nil, &clientError{EInval, "BLOCK_STATUS with an unknown or repeated context id"}
		}
		contexts = append(contexts, m)
	}
	return contexts, nil
}

func findContext(contexts []metaContext, id uint32) (metaContext, bool) {
	for _, m := range contexts {
		if m.id == id {
			return m, true
		}
	}
	return metaContext{}, false
}

// mapRange returns the extents of r, in order, neighbours different: all of them, or one more than limit, which shows where
// the last one that counts ends.
func (q *request) mapRange(t *blockcore.Task, r blockcore.Range, limit int) ([]blockcore.Extent, error) {
	var exts []blockcore.Extent
	var batch [statusBatch]blockcore.Extent
	for r.Length > 0 && len(exts) <= limit {
		got, err := q.edge().BlockStatus(t, r, batch[:0], min(len(batch), limit+1-len(exts)))
		if err != nil {
			return nil, err
		}
		for _, e := range got {
			exts = appendExtent(exts, e)
			r.Offset += e.Length
			r.Length -= e.Length
		}
	}
	return exts, nil
}

// appendExtent appends e, or makes the last extent longer where it is of the same kind.
func appendExtent(exts []blockcore.Extent, e blockcore.Extent) []blockcore.Extent {
	if last := len(exts) - 1; last >= 0 && exts[last].Status == e.Status && exts[last].Depth == e.Depth {
		exts[last].Length += e.Length
		return exts
	}
	return append(exts, e)
}

// state is the status of e in the context m.
func (m metaContext) state(e blockcore.Extent) uint64 {
	if m.name == ContextAllocationDepth {
		return uint64(e.Depth)
	}
	var s BlockState
	if e.Status&blockcore.ExtentHole != 0 {
		s |= StateHole
	}
	if e.Status&blockcore.ExtentZero != 0 {
		s |= StateZero
	}
	return uint64(s)
}

// replyStatus appends the chunk of one context.
func (c *Conn) replyStatus(q *request, flags ChunkFlags, m metaContext, runs []run) {
	if c.style == styleExtended {
		p := c.chunk(q, flags, ChunkBlockStatusExt, 8+16*len(runs), 8+16*len(runs))
		binary.BigEndian.PutUint32(p, m.id)
		binary.BigEndian.PutUint32(p[4:], uint32(len(runs)))
		for i, r := range runs {
			binary.BigEndian.PutUint64(p[8+16*i:], r.length)
			binary.BigEndian.PutUint64(p[16+16*i:], r.state)
		}
		return
	}
	p := c.chunk(q, flags, ChunkBlockStatus, 4+8*len(runs), 4+8*len(runs))
	binary.BigEndian.PutUint32(p, m.id)
	for i, r := range runs {
		binary.BigEndian.PutUint32(p[4+8*i:], uint32(r.length))
		binary.BigEndian.PutUint32(p[8+8*i:], uint32(r.state))
	}
}

// run is an extent as one context shows it.
type run struct{ length, state uint64 }

// compactRunMax is the longest extent that a compact reply has room for, rounded down to the largest block size.
const compactRunMax = math.MaxUint32 &^ (64<<10 - 1)

// runs translates exts for the context m. Extents that look the same in it are one.
func (c *Conn) runs(m metaContext, exts []blockcore.Extent, limit int) []run {
	runs := make([]run, 0, min(len(exts), limit))
	for _, e := range exts {
		s := m.state(e)
		if last := len(runs) - 1; last >= 0 && runs[last].state == s && c.mayGrow(runs[last].length, e.Length) {
			runs[last].length += uint64(e.Length)
			continue
		}
		if len(runs) == limit {
			break
		}
		length := uint64(e.Length)
		if !c.mayGrow(0, e.Length) {
			// The rest is the client's next question.
			return append(runs, run{compactRunMax, s})
		}
		runs = append(runs, run{length, s})
	}
	return runs
}

// mayGrow reports whether a reply has room for an extent of length plus more bytes.
func (c *Conn) mayGrow(length uint64, more int64) bool {
	return c.style == styleExtended || length+uint64(more) <= compactRunMax
}
