package qcow2

import (
	"errors"
	"slices"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

var _ blockcore.BackingNamer = (*Image)(nil)

// BackingName returns the name and the format of the backing file that the header has. On the loop.
func (i *Image) BackingName() (name, backingFormat string) {
	return i.header.Backing, i.header.BackingFormat()
}

// NameBacking writes the name of another backing file into the header. What is read is still from the one that is open.
func (i *Image) NameBacking(t *blockcore.Task, name, backingFormat string) error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.unmarked {
		if err := i.mark(t); err != nil {
			return err
		}
	}
	next := *i.header
	next.Extensions = slices.Clone(next.Extensions)
	if err := next.SetBacking(name, backingFormat); err != nil {
		return err
	}
	if _, err := next.Marshal(); errors.Is(err, syscall.ENOSPC) { // the names of features are no more than a help
		next.SetExtension(format.ExtensionFeatures, nil)
	}
	return i.changeHeader(t, func(h *format.Header) { h.Backing, h.Extensions = next.Backing, next.Extensions })
}
