package format

import (
	"encoding/binary"
	"syscall"
)

const enotsup = syscall.ENOTSUP

// Magic is how an image begins.
const Magic = "QFI\xfb"

// Lengths of headers, in bytes.
const (
	headerBytesV2  = 72
	headerBytesV3  = 104
	compressionAt  = 104
	knownBytes     = 112 // with the compression type and its padding
	PrefixBytes    = knownBytes
	headerBytesNew = knownBytes
)

// Crypt is the encryption method of an image.
type Crypt uint32

// The methods.
const (
	CryptNone Crypt = iota
	CryptAES
	CryptLUKS
)

// Compression is how compressed clusters are compressed.
type Compression uint8

// The methods.
const (
	CompressionZlib Compression = iota
	CompressionZstd
)

func (c Compression) String() string {
	if c == CompressionZstd {
		return "zstd"
	}
	return "zlib"
}

// Header is the first cluster of an image. See qcow2.txt, "Header".
type Header struct {
	Version          uint32 // 2 or 3
	ClusterBits      uint32
	SizeBytes        uint64
	Crypt            Crypt
	L1Entries        uint32
	L1Offset         Host
	RefTableOffset   Host
	RefTableClusters uint32
	Snapshots        uint32
	SnapshotsOffset  Host
	Incompatible     uint64
	Compatible       uint64
	Autoclear        uint64
	RefcountOrder    uint32
	Compression      Compression
	// LengthBytes is the length of the structure; 0 takes what is needed.
	LengthBytes uint32
	// Unknown are the fields from byte 105 on, up to LengthBytes, which later versions may have.
	Unknown []byte

	// Extensions in their order, unknown ones too, without the end mark.
	Extensions []Extension

	// Backing is the name of the backing file; "" = there is none.
	Backing string
	// BackingOffset is where the name was found; Marshal places it anew.
	BackingOffset uint64
}

// Prefix reads what is needed to know how long the first cluster is. p has PrefixBytes or more of the image's beginning,
// or all of a shorter file and zeroes behind it.
func Prefix(p []byte) (clusterBytes int, err error) {
	h := &Header{}
	if err := h.begin(p); err != nil {
		return 0, err
	}
	return 1 << h.ClusterBits, nil
}

// begin reads magic, version and cluster size.
func (h *Header) begin(p []byte) error {
	if len(p) < headerBytesV2 || string(p[:4]) != Magic {
		return refuse(syscall.EINVAL, "Image is not in qcow2 format")
	}
	h.Version = binary.BigEndian.Uint32(p[4:])
	if h.Version != 2 && h.Version != 3 {
		return refuse(enotsup, "Unsupported qcow2 version %d", h.Version)
	}
	h.ClusterBits = binary.BigEndian.Uint32(p[20:])
	if h.ClusterBits < ClusterBitsMin || h.ClusterBits > ClusterBitsMax {
		return refuse(syscall.EINVAL, "Unsupported cluster size: 2^%d", h.ClusterBits)
	}
	return nil
}

// Mode says how strictly a header is judged.
type Mode uint8

const (
	// ForUse refuses all that is wrong.
	ForUse Mode = iota
	// ForCheck lets through what a repair can put right, as QEMU does: no refcount table, a wrong snapshot table.
	ForCheck
)

// Parse reads the first cluster of an image and refuses what is wrong in it, in the order in which QEMU looks. p has a whole cluster,
// with zeroes behind the end of a shorter file.
func Parse(p []byte, mode Mode) (*Header, error) {
	h := &Header{}
	if err := h.begin(p); err != nil {
		return nil, err
	}
	if len(p) < 1<<h.ClusterBits {
		return nil, refuse(syscall.EINVAL, "Could not read qcow2 header")
	}
	p = p[:1<<h.ClusterBits]
	h.parseFixed(p)
	backingBytes := binary.BigEndian.Uint32(p[16:])
	if err := h.checkLengths(); err != nil {
		return nil, err
	}
	end := uint64(len(p))
	if h.BackingOffset != 0 {
		end = h.BackingOffset
	}
	if err := h.checkFeatures(p[:end]); err != nil {
		return nil, err
	}
	if err := h.checkTables(mode); err != nil {
		return nil, err
	}
	if err := h.parseExtensions(p[:end]); err != nil {
		return nil, err
	}
	if err := h.checkDataFile(); err != nil {
		return nil, err
	}
	if h.BackingOffset != 0 {
		if uint64(backingBytes) > min(BackingNameMax, uint64(len(p))-h.BackingOffset) {
			return nil, refuse(syscall.EINVAL, "Backing file name too long")
		}
		h.Backing = string(p[h.BackingOffset : h.BackingOffset+uint64(backingBytes)])
	}
	return h, nil
}

// parseFixed reads the fields of known places. p has at least 512 bytes.
func (h *Header) parseFixed(p []byte) {
	be := binary.BigEndian
	h.BackingOffset = be.Uint64(p[8:])
	h.SizeBytes = be.Uint64(p[24:])
	h.Crypt = Crypt(be.Uint32(p[32:]))
	h.L1Entries = be.Uint32(p[36:])
	h.L1Offset = Host(be.Uint64(p[40:]))
	h.RefTableOffset = Host(be.Uint64(p[48:]))
	h.RefTableClusters = be.Uint32(p[56:])
	h.Snapshots = be.Uint32(p[60:])
	h.SnapshotsOffset = Host(be.Uint64(p[64:]))
	h.RefcountOrder, h.LengthBytes = 4, headerBytesV2
	if h.Version == 2 {
		return
	}
	h.Incompatible = be.Uint64(p[72:])
	h.Compatible = be.Uint64(p[80:])
	h.Autoclear = be.Uint64(p[88:])
	h.RefcountOrder = be.Uint32(p[96:])
	h.LengthBytes = be.Uint32(p[100:])
	if h.LengthBytes > compressionAt && uint64(h.LengthBytes) <= uint64(len(p)) {
		h.Compression = Compression(p[compressionAt])
		h.Unknown = append([]byte(nil), p[compressionAt+1:h.LengthBytes]...)
	}
}

// length is how long the structure has to be.
func (h *Header) length() int {
	switch {
	case h.Version == 2:
		return headerBytesV2
	case h.LengthBytes == 0:
		return headerBytesNew
	case h.Compression != CompressionZlib:
		return max(int(h.LengthBytes), knownBytes)
	}
	return max(int(h.LengthBytes), headerBytesV3)
}

// Marshal writes the beginning of the first cluster: header, extensions, and the name of the backing file, which may all be
// shorter than the cluster. What follows is to be zeroes.
func (h *Header) Marshal() ([]byte, error) {
	p := h.marshalFixed()
	for _, e := range h.Extensions {
		p = e.marshal(p)
	}
	p = Extension{}.marshal(p)
	if h.Backing != "" {
		binary.BigEndian.PutUint64(p[8:], uint64(len(p)))
		binary.BigEndian.PutUint32(p[16:], uint32(len(h.Backing)))
		p = append(p, h.Backing...)
	}
	if len(h.Backing) > BackingNameMax || uint64(len(p)) > 1<<h.ClusterBits {
		return nil, refuse(syscall.ENOSPC, "The header does not fit into the first cluster")
	}
	return p, nil
}

// Ends returns where a header ends that was parsed, at the latest.
func (h *Header) Ends() int {
	n := len(h.marshalFixed()) + extensionHeadBytes
	for _, e := range h.Extensions {
		n += extensionHeadBytes + (len(e.Data)+7)&^7
	}
	return max(n, int(h.BackingOffset)+len(h.Backing))
}

func (h *Header) marshalFixed() []byte {
	be := binary.BigEndian
	p := make([]byte, h.length())
	copy(p, Magic)
	be.PutUint32(p[4:], h.Version)
	be.PutUint32(p[20:], h.ClusterBits)
	be.PutUint64(p[24:], h.SizeBytes)
	be.PutUint32(p[32:], uint32(h.Crypt))
	be.PutUint32(p[36:], h.L1Entries)
	be.PutUint64(p[40:], uint64(h.L1Offset))
	be.PutUint64(p[48:], uint64(h.RefTableOffset))
	be.PutUint32(p[56:], h.RefTableClusters)
	be.PutUint32(p[60:], h.Snapshots)
	be.PutUint64(p[64:], uint64(h.SnapshotsOffset))
	if h.Version == 2 {
		return p
	}
	be.PutUint64(p[72:], h.Incompatible)
	be.PutUint64(p[80:], h.Compatible)
	be.PutUint64(p[88:], h.Autoclear)
	be.PutUint32(p[96:], h.RefcountOrder)
	be.PutUint32(p[100:], uint32(len(p)))
	if len(p) > compressionAt {
		p[compressionAt] = byte(h.Compression)
		copy(p[compressionAt+1:], h.Unknown)
	}
	return p
}

// Has reports whether an incompatible feature is set.
func (h *Header) Has(incompatible uint64) bool { return h.Incompatible&incompatible != 0 }
