package format

// EntryBytes is the size of an entry of an L1, refcount or bitmap table, and of an L2 table without subclusters.
const EntryBytes = 8

// SubclustersPerCluster is what extended L2 entries divide a cluster into.
const SubclustersPerCluster = 32

// Geometry is what sizes and indexes follow from.
type Geometry struct {
	ClusterBits   uint
	RefcountOrder uint
	Extended      bool // L2 entries have subclusters
}

// Geometry of the image.
func (h *Header) Geometry() Geometry {
	return Geometry{ClusterBits: uint(h.ClusterBits), RefcountOrder: uint(min(h.RefcountOrder, 6)), Extended: h.Has(IncompatibleExtendedL2)}
}

// ClusterBytes is the size of a cluster.
func (g Geometry) ClusterBytes() int64 { return 1 << g.ClusterBits }

// SubclusterBits is the size of what can be allocated at once within a cluster, as a power of two: all of it, without subclusters.
func (g Geometry) SubclusterBits() uint {
	if g.Extended {
		return g.ClusterBits - 5
	}
	return g.ClusterBits
}

// SubclusterBytes is the size of what can be allocated at once within a cluster.
func (g Geometry) SubclusterBytes() int64 { return 1 << g.SubclusterBits() }

// l2EntryBits is log2 of the size of an L2 entry.
func (g Geometry) l2EntryBits() uint {
	if g.Extended {
		return 4
	}
	return 3
}

// L2EntryBytes is the size of an L2 entry.
func (g Geometry) L2EntryBytes() int { return 1 << g.l2EntryBits() }

// L2Bits is log2 of the number of entries of an L2 table.
func (g Geometry) L2Bits() uint { return g.ClusterBits - g.l2EntryBits() }

// L2Entries is the number of entries of an L2 table.
func (g Geometry) L2Entries() int { return 1 << g.L2Bits() }

// L1Index tells which entry of the L1 table leads to off.
func (g Geometry) L1Index(off Guest) int { return int(off >> (g.ClusterBits + g.L2Bits())) }

// L2Index tells which entry of its L2 table stands for off.
func (g Geometry) L2Index(off Guest) int { return int(off>>g.ClusterBits) & (g.L2Entries() - 1) }

// L1EntriesFor returns how many entries the L1 table of a disk of sizeBytes needs.
func (g Geometry) L1EntriesFor(sizeBytes uint64) uint64 {
	shift := g.ClusterBits + g.L2Bits()
	n := sizeBytes >> shift
	if sizeBytes&(1<<shift-1) != 0 {
		n++
	}
	return n
}

// InCluster is how far into its cluster off is.
func (g Geometry) InCluster(off Host) int64 { return int64(off) & (g.ClusterBytes() - 1) }

// GuestInCluster is how far into its cluster off is.
func (g Geometry) GuestInCluster(off Guest) int64 { return int64(off) & (g.ClusterBytes() - 1) }

// Index is the number of the cluster that off lies in.
func (g Geometry) Index(off Host) int64 { return int64(off) >> g.ClusterBits }

// Cluster is where the cluster of a number begins.
func (g Geometry) Cluster(index int64) Host { return Host(index << g.ClusterBits) }

// Clusters is how many clusters hold lengthBytes, which is not negative.
func (g Geometry) Clusters(lengthBytes int64) int64 {
	n := lengthBytes >> g.ClusterBits
	if lengthBytes&(g.ClusterBytes()-1) != 0 {
		n++
	}
	return n
}
