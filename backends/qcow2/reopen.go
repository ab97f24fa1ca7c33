package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

var _ blockcore.Reopener = (*Image)(nil)

// PrepareReopen takes other options. options are Options, complete ones. All that is in memory reaches the disk before, while the image may still be written.
func (i *Image) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	o, ok := options.(Options)
	if !ok {
		return nil, nil, fmt.Errorf("%T are no options of a qcow2 image: %w", options, syscall.EINVAL)
	}
	if o.Warn == nil {
		o.Warn = i.options.Warn
	}
	if o.OnCorrupted == nil {
		o.OnCorrupted = i.options.OnCorrupted
	}
	if err := i.mayBecome(o); err != nil {
		return nil, nil, err
	}
	if err := i.conclude(t); err != nil {
		return nil, nil, err
	}
	next, err := i.terms(t, o)
	if err != nil {
		return nil, nil, err
	}
	before := i.present()
	i.adopt(t, next)
	return func(*blockcore.Task) {}, func(t *blockcore.Task) { i.adopt(t, before) }, nil
}

// mayBecome refuses to write to what must not be written to.
func (i *Image) mayBecome(o Options) error {
	if o.ReadOnly {
		return nil
	}
	if i.shows {
		return &format.Error{Errno: syscall.EACCES, Text: "The image shows a snapshot; cannot be opened read/write"}
	}
	if i.readOnly && i.header.Has(format.IncompatibleDirty) {
		return &format.Error{Errno: syscall.EACCES, Text: "Image was not closed properly; cannot be opened read/write before it is repaired"}
	}
	return mayOpen(i.header, false)
}
