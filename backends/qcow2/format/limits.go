package format

// Limits of the format and of QEMU, which are ours.
const (
	// ClusterBitsMin and ClusterBitsMax bound the cluster size: 512 bytes to 2 MiB.
	ClusterBitsMin = 9
	ClusterBitsMax = 21
	// ClusterBytesMax is the largest cluster.
	ClusterBytesMax = 1 << ClusterBitsMax
	// L1BytesMax bounds the active and each inactive L1 table.
	L1BytesMax = 32 << 20
	// RefTableBytesMax bounds the refcount table.
	RefTableBytesMax = 8 << 20
	// SnapshotsMax is the largest number of snapshots.
	SnapshotsMax = 65536
	// SnapshotExtraMax bounds the extra data of one snapshot, in bytes.
	SnapshotExtraMax = 1024
	// SnapshotTableBytesMax bounds the snapshot table.
	SnapshotTableBytesMax = 1024 * SnapshotsMax
	// BackingNameMax is the longest name of a backing file, in bytes.
	BackingNameMax = 1023
	// BackingFormatMax is the longest name of its format, in bytes: QEMU keeps it in 16 with a zero behind.
	BackingFormatMax = 15
	// BitmapsMax is the largest number of persistent bitmaps.
	BitmapsMax = 65535
	// BitmapNameMax is the longest name of a bitmap, in bytes.
	BitmapNameMax = 1023
	// BitmapDirectoryBytesMax bounds the bitmap directory.
	BitmapDirectoryBytesMax = 1024 * BitmapsMax
	// BitmapTableEntriesMax bounds one bitmap's table.
	BitmapTableEntriesMax = 0x8000000
	// BitmapBytesMax bounds the clusters that one bitmap occupies.
	BitmapBytesMax = 0x20000000
	// HostMax is where host offsets in L1 and L2 entries end: bit 56.
	HostMax Host = 1 << 56
	// SectorBytes is the unit of compressed data.
	SectorBytes = 512
)

// Host is an offset in the image file, in bytes, or in its external data file.
type Host int64

// Guest is an offset in the disk that the image stands for, in bytes.
type Guest int64
