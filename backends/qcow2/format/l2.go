package format

// Kind says what an L2 entry stands for, or in images with subclusters one of them.
type Kind uint8

const (
	// Unallocated: what the backing file has.
	Unallocated Kind = iota
	// UnallocatedAlloc is a subcluster like that, in a host cluster that others of its cluster use.
	UnallocatedAlloc
	// ZeroPlain: zeroes, without a host cluster.
	ZeroPlain
	// ZeroAlloc: zeroes, with a host cluster whose contents do not count.
	ZeroAlloc
	// Normal: data at the host offset.
	Normal
	// Compressed data.
	Compressed
	// Invalid: bits that contradict each other.
	Invalid
)

func (k Kind) String() string {
	return [...]string{"unallocated", "unallocated with a cluster", "zero", "zero with a cluster", "normal", "compressed", "invalid"}[min(k, Invalid)]
}

// L2Entry stands for a guest cluster.
type L2Entry struct {
	Descriptor uint64
	Bits       uint64 // of subclusters; 0 without them
}

// Subcluster bits: the low half says "allocated", the high half "reads as zeroes".
const (
	AllocatedBits uint64 = 1<<SubclustersPerCluster - 1
	ZeroBits      uint64 = AllocatedBits << SubclustersPerCluster
)

// L2Entry reads an entry of an L2 table, or of a part of one; i counts from the beginning of the part and is inside of it.
func (g Geometry) L2Entry(table []byte, i int) L2Entry {
	if !g.Extended {
		return L2Entry{Descriptor: Entry(table, i)}
	}
	return L2Entry{Descriptor: Entry(table, 2*i), Bits: Entry(table, 2*i+1)}
}

// SetL2Entry writes an entry of an L2 table.
func (g Geometry) SetL2Entry(table []byte, i int, e L2Entry) {
	if !g.Extended {
		SetEntry(table, i, e.Descriptor)
		return
	}
	SetEntry(table, 2*i, e.Descriptor)
	SetEntry(table, 2*i+1, e.Bits)
}

// Offset is the host offset of a cluster that is not compressed; it may be unaligned in a corrupt image.
func (e L2Entry) Offset() Host { return Host(e.Descriptor & OffsetMask) }

// Copied reports whether the cluster may be changed in place.
func (e L2Entry) Copied() bool { return e.Descriptor&FlagCopied != 0 }

// Compressed reports whether the cluster is compressed.
func (e L2Entry) Compressed() bool { return e.Descriptor&FlagCompressed != 0 }

// Reserved returns the bits of the descriptor that ought to be zero, of an entry that is not compressed.
func (e L2Entry) Reserved() uint64 {
	return e.Descriptor &^ (OffsetMask | FlagCopied | FlagCompressed | FlagZero)
}

// Kind of a cluster as a whole, subclusters left out of account. With an external data file an offset of 0 is as good as any.
func (g Geometry) Kind(e L2Entry, dataFile bool) Kind {
	switch {
	case e.Compressed():
		return Compressed
	case e.Descriptor&FlagZero != 0 && !g.Extended:
		if e.Offset() != 0 {
			return ZeroAlloc
		}
		return ZeroPlain
	case e.Offset() == 0 && !(dataFile && e.Copied()):
		return Unallocated
	}
	return Normal
}

// SubKind is the kind of one subcluster, 0 to 31, or of the cluster where there are none.
func (g Geometry) SubKind(e L2Entry, sub int, dataFile bool) Kind {
	kind := g.Kind(e, dataFile)
	if !g.Extended || kind == Compressed {
		return kind
	}
	allocated, zero := e.Bits&AllocatedBits, e.Bits>>SubclustersPerCluster
	bit := uint64(1) << sub
	if kind == Unallocated {
		switch {
		case allocated != 0:
			return Invalid
		case zero&bit != 0:
			return ZeroPlain
		}
		return Unallocated
	}
	switch {
	case allocated&zero != 0:
		return Invalid
	case zero&bit != 0:
		return ZeroAlloc
	case allocated&bit != 0:
		return Normal
	}
	return UnallocatedAlloc
}
