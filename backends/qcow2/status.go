package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// looksMax bounds how long one question keeps the loop: by the number of runs that are looked up.
const looksMax = 4096

// BlockStatus tells what is allocated here, and where it is not, what the backing image has.
func (i *Image) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	if err := i.usable(); err != nil {
		return exts, err
	}
	before, limit, looks := len(exts), len(exts)+max, 0
	for off, end := format.Guest(r.Offset), format.Guest(r.End()); off < end && len(exts) < limit && (looks < looksMax || len(exts) == before); {
		looks++
		m, err := i.lookup(t, off, int64(end-off))
		if err != nil {
			return exts, err
		}
		// Runs of one kind end where pieces of L2 tables do, and where they are not contiguous in the file: nobody wants to know that.
		for off+format.Guest(m.length) < end && looks < looksMax {
			looks++
			next, err := i.lookup(t, off+format.Guest(m.length), int64(end-off)-m.length)
			if err != nil || statusOf(next.kind) != statusOf(m.kind) {
				break
			}
			m.length += next.length
		}
		n := m.length
		if m.kind == format.Unallocated || m.kind == format.UnallocatedAlloc {
			if exts, n, err = i.statusBelow(t, off, n, exts, limit-len(exts)); err != nil {
				return exts, err
			}
		} else {
			exts = append(exts, blockcore.Extent{Length: n, Status: statusOf(m.kind), Depth: 1})
		}
		off += format.Guest(n)
	}
	return exts, nil
}

// unallocated is no status of an extent; it keeps runs apart.
const unallocated blockcore.ExtentStatus = 1 << 7

func statusOf(kind format.Kind) blockcore.ExtentStatus {
	switch kind {
	case format.Normal, format.Compressed:
		return 0
	case format.ZeroPlain, format.ZeroAlloc:
		return blockcore.ExtentHole | blockcore.ExtentZero
	}
	return unallocated
}

// statusBelow tells about n bytes at off that are not here, or about the beginning of them; done is how many that was.
func (i *Image) statusBelow(t *blockcore.Task, off format.Guest, n int64, exts []blockcore.Extent, max int) (_ []blockcore.Extent, done int64, err error) {
	const hole = blockcore.ExtentHole | blockcore.ExtentZero
	there := min(int64(i.backingEnd()-off), n)
	switch {
	case i.backing.Load() == nil:
		return append(exts, blockcore.Extent{Length: n, Status: hole}), n, nil
	case there <= 0:
		// The backing image is shorter: as if it had zeroes there.
		return append(exts, blockcore.Extent{Length: n, Status: hole, Depth: 2}), n, nil
	}
	before := len(exts)
	exts, err = i.backing.Load().BlockStatus(t, blockcore.Range{Offset: int64(off), Length: there}, exts, max)
	for k := before; k < len(exts); k++ {
		if exts[k].Depth > 0 {
			exts[k].Depth++
		}
		done += exts[k].Length
	}
	return exts, done, err
}
