package format

// Description is what monitors and tools tell of an image that only qcow2 has, with QEMU's names and in its order. Version 2 knows the first two only,
// besides the width of refcounts.
type Description struct {
	Compat          string              `json:"compat"`
	CompressionType string              `json:"compression-type"`
	LazyRefcounts   *bool               `json:"lazy-refcounts,omitempty"`
	Bitmaps         []BitmapDescription `json:"bitmaps,omitempty"`
	RefcountBits    uint                `json:"refcount-bits"`
	DataFile        string              `json:"data-file,omitempty"`
	DataFileRaw     *bool               `json:"data-file-raw,omitempty"`
	Corrupt         *bool               `json:"corrupt,omitempty"`
	ExtendedL2      *bool               `json:"extended-l2,omitempty"`
}

// BitmapDescription is a bitmap in an image.
type BitmapDescription struct {
	Flags       []string `json:"flags"`
	Name        string   `json:"name"`
	Granularity uint64   `json:"granularity"`
}

// Describe describes an image.
func Describe(h *Header, bitmaps []Bitmap) Description {
	d := Description{Compat: "0.10", CompressionType: h.Compression.String(), RefcountBits: h.Geometry().RefcountBits()}
	if h.Version >= 3 {
		d.Compat = "1.1"
		lazy, corrupt, extended := h.Compatible&CompatibleLazyRefcounts != 0, h.Has(IncompatibleCorrupt), h.Has(IncompatibleExtendedL2)
		d.LazyRefcounts, d.Corrupt, d.ExtendedL2 = &lazy, &corrupt, &extended
		if raw := h.Autoclear&AutoclearRawData != 0; h.Has(IncompatibleDataFile) {
			d.DataFile, d.DataFileRaw = h.DataFile(), &raw
		}
	}
	for k := range bitmaps {
		d.Bitmaps = append(d.Bitmaps, bitmaps[k].describe())
	}
	return d
}

func (b *Bitmap) describe() BitmapDescription {
	d := BitmapDescription{Name: b.Name, Granularity: 1 << b.GranularityBits, Flags: []string{}}
	if b.Flags&BitmapInUse != 0 {
		d.Flags = append(d.Flags, "in-use")
	}
	if b.Flags&BitmapAuto != 0 {
		d.Flags = append(d.Flags, "auto")
	}
	return d
}
