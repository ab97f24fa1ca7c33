package format

// compressedBits is where in a descriptor the number of sectors begins. See qcow2.txt, "Compressed Clusters Descriptor".
func (g Geometry) compressedBits() uint { return 62 - (g.ClusterBits - 8) }

// CompressedRange returns where the data of a compressed cluster is. It may end before lengthBytes: the last sector is rarely used
// up, and others may begin in it.
func (g Geometry) CompressedRange(e L2Entry) (offset Host, lengthBytes int64) {
	x := g.compressedBits()
	offset = Host(e.Descriptor & (1<<x - 1))
	sectors := int64(e.Descriptor>>x)&(1<<(g.ClusterBits-8)-1) + 1
	return offset, sectors*SectorBytes - int64(offset)&(SectorBytes-1)
}

// CompressedEntry returns the entry for compressed data of lengthBytes, 1 up to a cluster, at offset; ok = false when the offset is
// too far for one.
func (g Geometry) CompressedEntry(offset Host, lengthBytes int64) (e L2Entry, ok bool) {
	x := g.compressedBits()
	last := (int64(offset) + lengthBytes - 1) / SectorBytes
	sectors := uint64(last - int64(offset)/SectorBytes) // besides the first one
	if offset < 0 || offset >= min(HostMax, 1<<x) || sectors >= 1<<(g.ClusterBits-8) {
		return L2Entry{}, false
	}
	return L2Entry{Descriptor: FlagCompressed | sectors<<x | uint64(offset)}, true
}
