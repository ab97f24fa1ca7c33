package offline

import (
	"errors"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// ErrNoRoom says that a name does not fit into the header.
var ErrNoRoom = errors.New("the header has no room for the name")

// SetBacking changes which file is below the image, and changes no data: what is read afterwards is what the new file has. An empty name means
// none.
func (im *Image) SetBacking(name, backingFormat string) error {
	switch {
	case name != "" && im.header.Autoclear&format.AutoclearRawData != 0:
		return invalid("Backing file and data-file-raw cannot be used at the same time")
	case len(name) > format.BackingNameMax || len(backingFormat) > format.BackingFormatMax:
		return syscall.EINVAL
	}
	im.header.Backing = name
	var data []byte
	if name != "" && backingFormat != "" {
		data = []byte(backingFormat)
	}
	im.header.SetExtension(format.ExtensionBackingFormat, data)
	err := im.writeHeader()
	if errors.Is(err, syscall.ENOSPC) {
		return ErrNoRoom
	}
	return err
}
