package qcow2

import (
	"math/bits"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// mapping is what a run of guest bytes is made of.
type mapping struct {
	kind   format.Kind
	host   format.Host    // of the first byte: Normal, ZeroAlloc, UnallocatedAlloc
	copied bool           // the clusters may be changed in place
	length int64          // bytes
	entry  format.L2Entry // of Compressed
}

// lookup tells what is at off, as far as it is of one kind and contiguous in the file, at most max bytes, and at most what one piece of an L2
// table maps. It suspends only if that piece is not in memory.
func (i *Image) lookup(t *blockcore.Task, off format.Guest, max int64) (mapping, error) {
	return i.lookupFor(t, off, max, forReading)
}

// access is what a mapping is looked up for: QEMU tells of what is wrong with it in other words.
type access uint8

const (
	forReading access = iota
	forWriting
)

func (i *Image) lookupFor(t *blockcore.Task, off format.Guest, max int64, a access) (mapping, error) {
	at, err := i.place(t, off)
	if err != nil {
		return mapping{}, err
	}
	inCluster := i.g.GuestInCluster(off)
	if at.table == 0 {
		left := int64(i.g.L2Entries()-at.index)<<i.g.ClusterBits - inCluster
		return mapping{kind: format.Unallocated, length: min(max, left)}, nil
	}
	piece := i.l2.peek(at.piece)
	if piece == nil {
		if piece, err = i.l2.get(t, at.piece); err != nil {
			return mapping{}, err
		}
	}
	m, err := i.walk(t, piece, at, off, max, a)
	if err != nil {
		return m, err
	}
	m.length = min(m.length, max)
	return m, nil
}

// walk goes through the entries of a piece from that of off on.
func (i *Image) walk(t *blockcore.Task, piece *table, at l2Place, off format.Guest, max int64, a access) (mapping, error) {
	k := at.index - at.first
	inCluster := i.g.GuestInCluster(off)
	e := i.g.L2Entry(piece.bytes, k)
	m, err := i.interpret(t, e, at, off, a)
	if err != nil {
		return m, err
	}
	clusterBytes := i.g.ClusterBytes()
	// As long as the cluster is of this kind up to its end, the next one may go on.
	for next := clusterBytes - inCluster; m.length == next && next < max && m.kind != format.Compressed; next += clusterBytes {
		if k++; k == at.entries {
			break
		}
		e = i.g.L2Entry(piece.bytes, k)
		length := i.continues(m, e, m.host+format.Host(next))
		if m.length += length; length < clusterBytes {
			break
		}
	}
	return m, nil
}

// interpret reads one entry, from off to the end of its cluster or of what is alike in it.
func (i *Image) interpret(t *blockcore.Task, e format.L2Entry, at l2Place, off format.Guest, a access) (mapping, error) {
	inCluster := i.g.GuestInCluster(off)
	sub := int(inCluster >> i.g.SubclusterBits())
	m := mapping{kind: i.g.SubKind(e, sub, i.external), copied: e.Copied(), entry: e, length: i.g.ClusterBytes() - inCluster}
	switch m.kind {
	case format.Compressed:
		if i.external {
			return m, i.corrupt(t, true, -1, -1, "Compressed cluster encountered in external data file (offset: %s)", hex(off))
		}
		return m, nil
	case format.Invalid:
		return m, i.corrupt(t, true, -1, -1, "Invalid cluster entry found  (L2 offset: %s, L2 index: %s)", hex(at.table), hex(at.index))
	case format.ZeroPlain, format.ZeroAlloc:
		if i.version < 3 {
			return m, i.corrupt(t, true, -1, -1, "Zero cluster entry found in pre-v3 image (L2 offset: %s, L2 index: %s)", hex(at.table), hex(at.index))
		}
	}
	if i.g.Extended {
		m.length = i.alike(e, sub, m.kind)<<i.g.SubclusterBits() - inCluster&(i.g.SubclusterBytes()-1)
	}
	switch m.kind {
	case format.Normal, format.ZeroAlloc, format.UnallocatedAlloc:
		m.host = e.Offset() + format.Host(inCluster)
		return m, i.checkHost(t, e, at, off, m.kind, a)
	}
	return m, nil
}

// checkHost refuses a host offset that cannot be right.
func (i *Image) checkHost(t *blockcore.Task, e format.L2Entry, at l2Place, off format.Guest, kind format.Kind, a access) error {
	host := e.Offset()
	if i.g.InCluster(host) != 0 {
		what := "Cluster allocation"
		switch {
		case kind == format.ZeroAlloc:
			what = "Preallocated zero cluster"
		case a == forWriting:
			what = "Data cluster"
		}
		if a == forWriting {
			return i.corrupt(t, true, -1, -1, what+" offset %s unaligned (guest offset: %s)", hex(host), hex(off-format.Guest(i.g.GuestInCluster(off))))
		}
		return i.corrupt(t, true, -1, -1, what+" offset %s unaligned (L2 offset: %s, L2 index: %s)", hex(host), hex(at.table), hex(at.index))
	}
	if guest := off - format.Guest(i.g.GuestInCluster(off)); i.external && format.Guest(host) != guest {
		return i.corrupt(t, true, -1, -1, "External data file host cluster offset %s does not match guest cluster offset: %s, L2 index: %s)",
			hex(host), hex(guest), hex(at.index))
	}
	return nil
}

// alike counts the subclusters of a kind from sub on.
func (i *Image) alike(e format.L2Entry, sub int, kind format.Kind) int64 {
	allocated, zero := e.Bits&format.AllocatedBits, e.Bits>>format.SubclustersPerCluster
	var others uint64
	switch kind {
	case format.Normal:
		others = ^allocated
	case format.ZeroAlloc, format.ZeroPlain:
		others = ^zero
	default:
		others = allocated | zero
	}
	return int64(min(bits.TrailingZeros64(others>>sub), format.SubclustersPerCluster-sub))
}

// continues tells how many bytes at the beginning of a cluster go on with m. host is where they would have to be.
func (i *Image) continues(m mapping, e format.L2Entry, host format.Host) int64 {
	if i.g.SubKind(e, 0, i.external) != m.kind {
		return 0
	}
	switch m.kind {
	case format.Normal, format.ZeroAlloc, format.UnallocatedAlloc:
		if e.Offset() != host || e.Copied() != m.copied {
			return 0
		}
	case format.Invalid, format.Compressed:
		return 0
	}
	if !i.g.Extended {
		return i.g.ClusterBytes()
	}
	return i.alike(e, 0, m.kind) << i.g.SubclusterBits()
}
