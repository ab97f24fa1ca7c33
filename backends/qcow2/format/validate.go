package format

import (
	"math"
	"syscall"
)

// checkLengths looks at what must hold before anything behind the fixed fields is read.
func (h *Header) checkLengths() error {
	clusterBytes := uint64(1) << h.ClusterBits
	if h.Version > 2 {
		switch {
		case h.LengthBytes < headerBytesV3:
			return refuse(syscall.EINVAL, "qcow2 header too short")
		case uint64(h.LengthBytes) > clusterBytes:
			return refuse(syscall.EINVAL, "qcow2 header exceeds cluster size")
		}
	}
	// QEMU lets a name begin right at the end of the cluster: it is empty then.
	if h.BackingOffset > clusterBytes {
		return refuse(syscall.EINVAL, "Invalid backing file offset")
	}
	return nil
}

// checkFeatures refuses what cannot be understood. p ends where extensions end.
func (h *Header) checkFeatures(p []byte) error {
	flagged := h.Has(IncompatibleCompression)
	switch {
	case h.Compression > CompressionZstd:
		return refuse(enotsup, "qcow2: unknown compression type: %d", h.Compression)
	case h.Compression == CompressionZlib && flagged:
		return refuse(syscall.EINVAL, "qcow2: Compression type incompatible feature bit must not be set")
	case h.Compression != CompressionZlib && !flagged:
		return refuse(syscall.EINVAL, "qcow2: Compression type incompatible feature bit must be set")
	}
	unknown := h.Incompatible &^ incompatibleKnown
	if unknown == 0 {
		return nil
	}
	probe := &Header{}
	*probe = *h
	_ = probe.parseExtensions(p) // for the names; what is wrong there matters less
	var table []Feature
	if e := probe.Extension(ExtensionFeatures); e != nil {
		table = ParseFeatures(e.Data)
	}
	return unsupported(unknown, table)
}

// checkTables looks whether the tables that the header names can be where it says.
func (h *Header) checkTables(mode Mode) error {
	g := h.Geometry()
	switch {
	case g.SubclusterBytes() < SectorBytes:
		return refuse(syscall.EINVAL, "Unsupported subcluster size: %d", g.SubclusterBytes())
	case h.RefcountOrder > 6:
		return refuse(syscall.EINVAL, "Reference count entry width too large; may not exceed 64 bits")
	case h.Crypt > CryptLUKS:
		return refuse(syscall.EINVAL, "Unsupported encryption method %d", uint32(h.Crypt))
	case h.RefTableClusters == 0 && mode == ForUse:
		return refuse(syscall.EINVAL, "Image does not contain a reference count table")
	}
	if err := g.CheckTable("Reference count table", h.RefTableOffset, int64(h.RefTableClusters), g.ClusterBytes(), RefTableBytesMax); err != nil {
		return err
	}
	if mode == ForUse {
		if err := g.CheckTable("Snapshot table", h.SnapshotsOffset, int64(h.Snapshots), snapshotHeadBytes, snapshotHeadBytes*SnapshotsMax); err != nil {
			return err
		}
	}
	if err := g.CheckTable("Active L1 table", h.L1Offset, int64(h.L1Entries), EntryBytes, L1BytesMax); err != nil {
		return err
	}
	needs := g.L1EntriesFor(h.SizeBytes)
	switch {
	case needs > math.MaxInt32:
		return refuse(syscall.EFBIG, "Image is too big")
	case uint64(h.L1Entries) < needs:
		return refuse(syscall.EINVAL, "L1 table is too small")
	}
	return nil
}

// CheckTable refuses a table of entries that is too long or cannot be at offset.
func (g Geometry) CheckTable(what string, offset Host, entries, entryBytes, bytesMax int64) error {
	if entries < 0 || entries > bytesMax/entryBytes {
		return refuse(syscall.EFBIG, "%s too large", what)
	}
	if offset < 0 || int64(offset) > math.MaxInt64-entries*entryBytes || g.InCluster(offset) != 0 {
		return refuse(syscall.EINVAL, "%s offset invalid", what)
	}
	return nil
}

// checkDataFile refuses bits that need an external data file without one.
func (h *Header) checkDataFile() error {
	if h.Autoclear&AutoclearRawData != 0 && !h.Has(IncompatibleDataFile) {
		return refuse(syscall.EINVAL, "data-file-raw requires a data file")
	}
	return nil
}
