package format

import (
	"encoding/binary"
	"slices"
	"syscall"
)

// BitmapsExtension says where the bitmap directory is. See qcow2.txt, "Bitmaps extension".
type BitmapsExtension struct {
	Count           uint32
	DirectoryBytes  uint64
	DirectoryOffset Host
}

const bitmapsBytes = 24

// ParseBitmaps reads the bitmaps extension.
func ParseBitmaps(p []byte, g Geometry) (BitmapsExtension, error) {
	if len(p) != bitmapsBytes {
		return BitmapsExtension{}, refuse(syscall.EINVAL, "bitmaps_ext: Invalid extension length")
	}
	b := BitmapsExtension{
		Count: binary.BigEndian.Uint32(p), DirectoryBytes: binary.BigEndian.Uint64(p[8:]), DirectoryOffset: Host(binary.BigEndian.Uint64(p[16:])),
	}
	switch {
	case binary.BigEndian.Uint32(p[4:]) != 0:
		return b, refuse(syscall.EINVAL, "bitmaps_ext: Reserved field is not zero")
	case b.Count > BitmapsMax:
		return b, refuse(syscall.EINVAL, "bitmaps_ext: Image has %d bitmaps, exceeding the QEMU supported maximum of %d", b.Count, BitmapsMax)
	case b.Count == 0:
		return b, refuse(syscall.EINVAL, "found bitmaps extension with zero bitmaps")
	case b.DirectoryOffset < 0 || g.InCluster(b.DirectoryOffset) != 0:
		return b, refuse(syscall.EINVAL, "bitmaps_ext: invalid bitmap directory offset")
	case b.DirectoryBytes > BitmapDirectoryBytesMax:
		return b, refuse(syscall.EINVAL, "bitmaps_ext: bitmap directory size (%d) exceeds the maximum supported size (%d)", b.DirectoryBytes, BitmapDirectoryBytesMax)
	}
	return b, nil
}

// Marshal writes the extension's data.
func (b BitmapsExtension) Marshal() []byte {
	p := make([]byte, bitmapsBytes)
	binary.BigEndian.PutUint32(p, b.Count)
	binary.BigEndian.PutUint64(p[8:], b.DirectoryBytes)
	binary.BigEndian.PutUint64(p[16:], uint64(b.DirectoryOffset))
	return p
}

// BitmapFlags are the flags of a bitmap in the directory.
type BitmapFlags uint32

// The flags.
const (
	BitmapInUse BitmapFlags = 1 << iota
	BitmapAuto
	BitmapExtraCompatible

	bitmapFlagsKnown = 1<<iota - 1
)

// BitmapDirtyTracking is the one type of bitmap that there is.
const BitmapDirtyTracking = 1

// Bitmap is an entry of the bitmap directory.
type Bitmap struct {
	TableOffset     Host
	TableEntries    uint32
	Flags           BitmapFlags
	Type            uint8
	GranularityBits uint8
	Name            string
	Extra           []byte
}

const bitmapHeadBytes = 24

// ParseBitmapDirectory reads the bitmap directory, all of it, of a disk of sizeBytes.
func ParseBitmapDirectory(p []byte, ext BitmapsExtension, g Geometry, sizeBytes int64) ([]Bitmap, error) {
	var all []Bitmap
	for len(p) > 0 {
		b, n, ok := parseBitmap(p)
		if !ok {
			return nil, refuse(syscall.EINVAL, "Broken bitmap directory")
		}
		p = p[n:]
		if len(all) == int(ext.Count) {
			return nil, refuse(syscall.EINVAL, "More bitmaps found than specified in header extension")
		}
		if !b.valid(g, sizeBytes) {
			return nil, refuse(syscall.EINVAL, "Bitmap '%s' doesn't satisfy the constraints", b.Name)
		}
		all = append(all, b)
	}
	if len(all) != int(ext.Count) {
		return nil, refuse(syscall.EINVAL, "Less bitmaps found than specified in header extension")
	}
	return all, nil
}

func parseBitmap(p []byte) (b Bitmap, n int, ok bool) {
	be := binary.BigEndian
	if len(p) < bitmapHeadBytes {
		return b, 0, false
	}
	b = Bitmap{
		TableOffset: Host(be.Uint64(p)), TableEntries: be.Uint32(p[8:]), Flags: BitmapFlags(be.Uint32(p[12:])),
		Type: p[16], GranularityBits: p[17],
	}
	nameBytes, extraBytes := uint64(be.Uint16(p[18:])), uint64(be.Uint32(p[20:]))
	whole := (bitmapHeadBytes + nameBytes + extraBytes + 7) &^ 7
	if uint64(len(p)) < whole {
		return b, 0, false
	}
	b.Extra = slices.Clone(p[bitmapHeadBytes : bitmapHeadBytes+extraBytes])
	b.Name = string(p[bitmapHeadBytes+extraBytes : bitmapHeadBytes+extraBytes+nameBytes])
	return b, int(whole), true
}

// valid is QEMU's judgement of one entry.
func (b *Bitmap) valid(g Geometry, sizeBytes int64) bool {
	bytes := uint64(b.TableEntries) << g.ClusterBits
	switch {
	case len(b.Name) == 0 || len(b.Name) > BitmapNameMax:
	case b.TableEntries == 0 || b.TableEntries > BitmapTableEntriesMax || b.TableOffset <= 0 || g.InCluster(b.TableOffset) != 0:
	case b.GranularityBits < 9 || b.GranularityBits > 31 || b.Flags&^bitmapFlagsKnown != 0 || b.Type != BitmapDirtyTracking:
	case bytes > BitmapBytesMax:
	default:
		// One that was in use may be older than the size of the disk.
		return b.Flags&BitmapInUse != 0 || uint64(sizeBytes) <= bytes*8<<b.GranularityBits
	}
	return false
}

// MarshalBitmapDirectory writes the bitmap directory.
func MarshalBitmapDirectory(all []Bitmap) []byte {
	be := binary.BigEndian
	var p []byte
	for i := range all {
		b := &all[i]
		p = be.AppendUint64(p, uint64(b.TableOffset))
		p = be.AppendUint32(p, b.TableEntries)
		p = be.AppendUint32(p, uint32(b.Flags))
		p = append(p, b.Type, b.GranularityBits)
		p = be.AppendUint16(p, uint16(len(b.Name)))
		p = be.AppendUint32(p, uint32(len(b.Extra)))
		p = append(p, b.Extra...)
		p = append(p, b.Name...)
		p = append(p, make([]byte, -len(p)&7)...)
	}
	return p
}

// BitmapEntry is an entry of a bitmap's table: where a cluster of its bits is.
type BitmapEntry uint64

const (
	bitmapAllOnes  uint64 = 1
	bitmapReserved uint64 = 0xff000000000001fe
)

// Offset is where the cluster is; 0 = there is none, and all bits are as AllOnes says.
func (e BitmapEntry) Offset() Host { return Host(uint64(e) & OffsetMask) }

// AllOnes says what the bits are where there is no cluster.
func (e BitmapEntry) AllOnes() bool { return uint64(e)&bitmapAllOnes != 0 }

// Valid refuses bits that contradict each other.
func (e BitmapEntry) Valid(g Geometry) bool {
	if uint64(e)&bitmapReserved != 0 || g.InCluster(e.Offset()) != 0 {
		return false
	}
	return e.Offset() == 0 || !e.AllOnes()
}

// NewBitmapEntry makes an entry: of a cluster, or of none.
func NewBitmapEntry(offset Host, allOnes bool) BitmapEntry {
	e := uint64(offset) & OffsetMask
	if e == 0 && allOnes {
		e = bitmapAllOnes
	}
	return BitmapEntry(e)
}
