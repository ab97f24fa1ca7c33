package qcow2

import (
	"fmt"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

var (
	_ blockcore.Reopener      = (*Image)(nil)
	_ blockcore.AccessChanger = (*Image)(nil)
)

// accessOptions are the options that hold, but for the right to write.
type accessOptions struct{ readOnly bool }

// OptionsFor implements blockcore.AccessChanger.
func (i *Image) OptionsFor(readOnly bool) any { return accessOptions{readOnly} }

// PrepareReopen takes other options. options are Options, complete ones. All that is in memory reaches the disk before, while the image may still be written.
func (i *Image) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	var o Options
	keeps := false
	switch options := options.(type) {
	case Options:
		o = options
	case accessOptions:
		o, keeps = i.options, options.readOnly // so far nobody else could write
		o.ReadOnly = options.readOnly
	default:
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
	if o.ReadOnly {
		i.trim(t) // the last chance
	}
	next, err := i.terms(t, o)
	if err != nil {
		return nil, nil, err
	}
	before := i.present()
	next.keeps, before.keeps = keeps, keeps
	i.adopt(t, next)
	return nil, func(t *blockcore.Task) { i.adopt(t, before) }, nil
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
