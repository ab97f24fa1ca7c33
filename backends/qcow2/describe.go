package qcow2

import (
	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Description returns what the header says of the image, and whether it was not closed, or is in use with refcounts that are not on disk.
func (i *Image) Description(*blockcore.Task) (kind string, data any, dirty bool) {
	return "qcow2", format.Describe(i.header, i.bitmaps.entries), i.header.Has(format.IncompatibleDirty)
}
