package format

import (
	"encoding/binary"
	"slices"
	"syscall"
)

// ExtensionType says what a header extension is for.
type ExtensionType uint32

// The types that there are.
const (
	ExtensionEnd           ExtensionType = 0
	ExtensionBackingFormat ExtensionType = 0xe2792aca
	ExtensionFeatures      ExtensionType = 0x6803f857
	ExtensionBitmaps       ExtensionType = 0x23852875
	ExtensionCrypt         ExtensionType = 0x0537be77
	ExtensionDataFile      ExtensionType = 0x44415441
)

// Extension is a header extension as it stands in the image.
type Extension struct {
	Type ExtensionType
	Data []byte
}

const extensionHeadBytes = 8

// parseExtensions reads what follows the header. p ends where extensions end.
func (h *Header) parseExtensions(p []byte) error {
	at := uint64(h.LengthBytes)
	for at+extensionHeadBytes <= uint64(len(p)) {
		kind := ExtensionType(binary.BigEndian.Uint32(p[at:]))
		length := uint64(binary.BigEndian.Uint32(p[at+4:]))
		at += extensionHeadBytes
		if length > uint64(len(p))-at {
			return refuse(syscall.EINVAL, "Header extension too large")
		}
		if kind == ExtensionEnd {
			return nil
		}
		e := Extension{Type: kind, Data: slices.Clone(p[at : at+length])}
		if err := h.checkExtension(e); err != nil {
			return err
		}
		h.Extensions = append(h.Extensions, e)
		at += (length + 7) &^ 7
	}
	if at < uint64(len(p)) { // a piece of a head
		return refuse(syscall.EINVAL, "Header extension too large")
	}
	return nil
}

func (h *Header) checkExtension(e Extension) error {
	switch e.Type {
	case ExtensionBackingFormat:
		if len(e.Data) > BackingFormatMax {
			return refuse(syscall.EINVAL, "ERROR: ext_backing_format: len=%d too large (>=%d)", len(e.Data), BackingFormatMax+1)
		}
	case ExtensionBitmaps:
		if h.Autoclear&AutoclearBitmaps == 0 {
			return nil // stale, and not to be looked at
		}
		_, err := ParseBitmaps(e.Data, h.Geometry())
		return err
	case ExtensionCrypt:
		switch {
		case h.Crypt != CryptLUKS:
			return refuse(syscall.EINVAL, "CRYPTO header extension only expected with LUKS encryption method")
		case len(e.Data) != 16:
			return refuse(syscall.EINVAL, "CRYPTO header extension size %d, but expected size 16", len(e.Data))
		}
	}
	return nil
}

// marshal appends e, padded.
func (e Extension) marshal(p []byte) []byte {
	p = binary.BigEndian.AppendUint32(p, uint32(e.Type))
	p = binary.BigEndian.AppendUint32(p, uint32(len(e.Data)))
	p = append(p, e.Data...)
	return append(p, make([]byte, -len(e.Data)&7)...)
}

// Extension returns the first extension of a type, nil = there is none.
func (h *Header) Extension(kind ExtensionType) *Extension {
	for i := range h.Extensions {
		if h.Extensions[i].Type == kind {
			return &h.Extensions[i]
		}
	}
	return nil
}

// SetExtension puts data in the place of the extension of that type, or behind the others; nil data takes it away.
func (h *Header) SetExtension(kind ExtensionType, data []byte) {
	if data == nil {
		h.Extensions = slices.DeleteFunc(h.Extensions, func(e Extension) bool { return e.Type == kind })
		return
	}
	if e := h.Extension(kind); e != nil {
		e.Data = data
		return
	}
	h.Extensions = append(h.Extensions, Extension{Type: kind, Data: data})
}

// text returns an extension that is a string.
func (h *Header) text(kind ExtensionType) string {
	if e := h.Extension(kind); e != nil {
		return string(e.Data)
	}
	return ""
}

// BackingFormat is the format of the backing file; "" = it is not told.
func (h *Header) BackingFormat() string { return h.text(ExtensionBackingFormat) }

// DataFile is the name of the external data file; "" = it is not told.
func (h *Header) DataFile() string { return h.text(ExtensionDataFile) }

// SetBacking changes what is written down of the backing file; an empty name means none.
func (h *Header) SetBacking(name, backingFormat string) error {
	switch {
	case name != "" && h.Autoclear&AutoclearRawData != 0:
		return refuse(syscall.EINVAL, "Backing file and data-file-raw cannot be used at the same time")
	case len(name) > BackingNameMax || len(backingFormat) > BackingFormatMax:
		return syscall.EINVAL
	}
	h.Backing = name
	var data []byte
	if name != "" && backingFormat != "" {
		data = []byte(backingFormat)
	}
	h.SetExtension(ExtensionBackingFormat, data)
	return nil
}
