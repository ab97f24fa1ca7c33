package format

import (
	"bytes"
	"fmt"
	"strings"
)

// Incompatible features: who does not know one does not open the image.
const (
	IncompatibleDirty uint64 = 1 << iota
	IncompatibleCorrupt
	IncompatibleDataFile
	IncompatibleCompression
	IncompatibleExtendedL2

	incompatibleKnown = 1<<iota - 1
)

// Compatible features.
const (
	CompatibleLazyRefcounts uint64 = 1 << iota
)

// Autoclear features: who does not know one clears it before writing.
const (
	AutoclearBitmaps uint64 = 1 << iota
	AutoclearRawData

	// AutoclearKnown are all that we know.
	AutoclearKnown = 1<<iota - 1
)

// FeatureKind is one of the three sets of features.
type FeatureKind uint8

// The kinds, by their numbers in the feature name table.
const (
	FeatureIncompatible FeatureKind = iota
	FeatureCompatible
	FeatureAutoclear
)

// Feature is an entry of the feature name table.
type Feature struct {
	Kind FeatureKind
	Bit  uint8
	Name string // at most 46 bytes
}

const (
	featureBytes     = 48
	featureNameBytes = featureBytes - 2
)

// Features lists all features that there are, as the table in new images does.
func Features() []Feature {
	return []Feature{
		{FeatureIncompatible, 0, "dirty bit"},
		{FeatureIncompatible, 1, "corrupt bit"},
		{FeatureIncompatible, 2, "external data file"},
		{FeatureIncompatible, 3, "compression type"},
		{FeatureIncompatible, 4, "extended L2 entries"},
		{FeatureCompatible, 0, "lazy refcounts"},
		{FeatureAutoclear, 0, "bitmaps"},
		{FeatureAutoclear, 1, "raw external data"},
	}
}

// ParseFeatures reads a feature name table; what is left over at its end is ignored.
func ParseFeatures(p []byte) []Feature {
	var all []Feature
	for ; len(p) >= featureBytes; p = p[featureBytes:] {
		name, _, _ := bytes.Cut(p[2:featureBytes], []byte{0})
		all = append(all, Feature{Kind: FeatureKind(p[0]), Bit: p[1], Name: string(name)})
	}
	return all
}

// MarshalFeatures writes a feature name table.
func MarshalFeatures(all []Feature) []byte {
	p := make([]byte, 0, len(all)*featureBytes)
	for _, f := range all {
		var name [featureNameBytes]byte
		copy(name[:], f.Name)
		p = append(append(p, byte(f.Kind), f.Bit), name[:]...)
	}
	return p
}

// unsupported names the incompatible features of mask with the help of the image's own table.
func unsupported(mask uint64, table []Feature) error {
	var names []string
	for _, f := range table {
		if f.Kind == FeatureIncompatible && f.Bit < 64 && mask&(1<<f.Bit) != 0 {
			names = append(names, f.Name)
			mask &^= 1 << f.Bit
		}
	}
	if mask != 0 {
		names = append(names, fmt.Sprintf("Unknown incompatible feature: %x", mask))
	}
	return refuse(enotsup, "Unsupported qcow2 feature(s): %s", strings.Join(names, ", "))
}
