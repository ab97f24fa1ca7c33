package offline

import (
	"fmt"
	"math"
	"math/bits"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// Preallocation is how much of an image is made when it is created, or made longer.
type Preallocation uint8

// The ways, each with what the one before does.
const (
	PreallocationOff      Preallocation = iota
	PreallocationMetadata               // clusters have their places
	PreallocationFalloc                 // the file system has set the space apart
	PreallocationFull                   // zeroes were written
)

var preallocations = [...]string{"off", "metadata", "falloc", "full"}

func (p Preallocation) String() string { return preallocations[min(int(p), len(preallocations)-1)] }

// ParsePreallocation reads the name of one.
func ParsePreallocation(text string) (Preallocation, error) {
	for i, name := range preallocations {
		if text == name {
			return Preallocation(i), nil
		}
	}
	return 0, invalid("Parameter 'preallocation' does not accept value '%s'", text)
}

// CreateOptions are what an image is to be. The zero value of a field takes QEMU's default.
type CreateOptions struct {
	SizeBytes     int64 // rounded up to sectors
	Version       int   // 2 or 3
	ClusterBytes  int64
	RefcountBits  int
	ExtendedL2    bool
	LazyRefcounts bool
	Compression   format.Compression
	Preallocation Preallocation
	// Backing is the name of the backing file as the image is to have it; nobody looks for it.
	Backing, BackingFormat string
	// DataFile is the name of the external data file as the image is to have it.
	DataFile    string
	DataFileRaw bool
}

// Defaults of CreateOptions.
const (
	ClusterBytesDefault = 64 << 10
	RefcountBitsDefault = 16
	versionDefault      = 3
	extendedClusterMin  = 16 << 10
)

func invalid(text string, args ...any) error {
	return &format.Error{Errno: syscall.EINVAL, Text: fmt.Sprintf(text, args...)}
}

// WithDefaults fills in what was left open.
func (o CreateOptions) WithDefaults() CreateOptions {
	if o.Version == 0 {
		o.Version = versionDefault
	}
	if o.ClusterBytes == 0 {
		o.ClusterBytes = ClusterBytesDefault
	}
	if o.RefcountBits == 0 {
		o.RefcountBits = RefcountBitsDefault
	}
	return o
}

// Check refuses what cannot be, in QEMU's words and order.
func (o CreateOptions) Check() error {
	o = o.WithDefaults()
	for _, check := range []func() error{o.checkClusters, o.checkBacking, o.checkCounts, o.checkDataFile, o.checkCompression, o.checkSize} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o CreateOptions) checkClusters() error {
	size := o.ClusterBytes
	switch {
	case size < 1<<format.ClusterBitsMin || size > format.ClusterBytesMax || size&(size-1) != 0:
		return invalid("Cluster size must be a power of two between %d and %dk", 1<<format.ClusterBitsMin, format.ClusterBytesMax>>10)
	case o.ExtendedL2 && o.Version < 3:
		return invalid("Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)")
	case o.ExtendedL2 && size < extendedClusterMin:
		return invalid("Extended L2 entries are only supported with cluster sizes of at least %d bytes", extendedClusterMin)
	}
	return nil
}

func (o CreateOptions) checkBacking() error {
	switch {
	case o.Preallocation != PreallocationOff && o.Backing != "" && !o.ExtendedL2:
		return invalid("Backing file and preallocation can only be used at the same time if extended_l2 is on")
	case o.BackingFormat != "" && o.Backing == "":
		return invalid("Backing format cannot be used without backing file")
	case len(o.Backing) > format.BackingNameMax:
		return invalid("Backing file name too long")
	case len(o.BackingFormat) > format.BackingFormatMax:
		return invalid("Backing format name too long")
	}
	return nil
}

func (o CreateOptions) checkCounts() error {
	switch {
	case o.LazyRefcounts && o.Version < 3:
		return invalid("Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)")
	case o.RefcountBits < 1 || o.RefcountBits > 64 || o.RefcountBits&(o.RefcountBits-1) != 0:
		return invalid("Refcount width must be a power of two and may not exceed 64 bits")
	case o.RefcountBits != RefcountBitsDefault && o.Version < 3:
		return invalid("Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)")
	}
	return nil
}

func (o CreateOptions) checkDataFile() error {
	switch {
	case o.DataFileRaw && o.DataFile == "":
		return invalid("data-file-raw requires data-file")
	case o.DataFileRaw && o.Backing != "":
		return invalid("Backing file and data-file-raw cannot be used at the same time")
	case o.DataFile != "" && o.Version < 3:
		return invalid("External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)")
	}
	return nil
}

func (o CreateOptions) checkCompression() error {
	if o.Compression != format.CompressionZlib && o.Version < 3 {
		return invalid("Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)")
	}
	return nil
}

// ErrTooLarge says that a size needs a larger L1 table than there can be.
var ErrTooLarge = &format.Error{Errno: syscall.EFBIG, Text: "The image size is too large for file format 'qcow2' (try using a larger cluster size)"}

func (o CreateOptions) checkSize() error {
	if o.SizeBytes < 0 || o.SizeBytes > math.MaxInt64-format.SectorBytes {
		return ErrTooLarge
	}
	if o.header().Geometry().L1EntriesFor(o.sectors()) > format.L1BytesMax/format.EntryBytes {
		return ErrTooLarge
	}
	return nil
}

// sectors is the size in bytes, rounded up to sectors.
func (o CreateOptions) sectors() uint64 {
	return (uint64(o.SizeBytes) + format.SectorBytes - 1) &^ (format.SectorBytes - 1)
}

// header is the header without places and names.
func (o CreateOptions) header() *format.Header {
	h := &format.Header{
		Version: uint32(o.Version), ClusterBits: uint32(bits.TrailingZeros64(uint64(o.ClusterBytes))), SizeBytes: o.sectors(),
		RefcountOrder: uint32(bits.TrailingZeros(uint(o.RefcountBits))), Compression: o.Compression,
	}
	for _, flag := range []struct {
		set  bool
		word *uint64
		bit  uint64
	}{
		{o.DataFile != "", &h.Incompatible, format.IncompatibleDataFile},
		{o.Compression != format.CompressionZlib, &h.Incompatible, format.IncompatibleCompression},
		{o.ExtendedL2, &h.Incompatible, format.IncompatibleExtendedL2},
		{o.LazyRefcounts, &h.Compatible, format.CompatibleLazyRefcounts},
		{o.DataFileRaw, &h.Autoclear, format.AutoclearRawData},
	} {
		if flag.set {
			*flag.word |= flag.bit
		}
	}
	return h
}
