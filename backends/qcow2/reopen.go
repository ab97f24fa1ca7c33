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
	_ blockcore.Mender        = (*Image)(nil)
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
	if o.Repair == nil {
		o.Repair = i.options.Repair
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
	i.mends = i.unclosed() && !o.ReadOnly
	i.adopt(t, next)
	return nil, func(t *blockcore.Task) { i.mends = false; i.adopt(t, before) }, nil
}

// mayBecome refuses to write to what must not be written to.
func (i *Image) mayBecome(o Options) error {
	if o.ReadOnly {
		return nil
	}
	if i.shows {
		return &format.Error{Errno: syscall.EACCES, Text: "The image shows a snapshot; cannot be opened read/write"}
	}
	if i.unclosed() && o.Repair == nil {
		return &format.Error{Errno: syscall.EACCES, Text: "Image was not closed properly; cannot be opened read/write before it is repaired"}
	}
	return mayOpen(i.header, false)
}

// unclosed reports whether the image was found as somebody left it who did not close it. One that we write ourselves says so too.
func (i *Image) unclosed() bool { return i.readOnly && i.header.Has(format.IncompatibleDirty) }

// Mend repairs an image that was not closed, and that may be written from now on. QEMU writes to it as it is, over clusters that seem to be free.
func (i *Image) Mend(t *blockcore.Task) error {
	if !i.mends {
		return nil
	}
	h, first, err := repair(t, i.file.Load(), i.options.Repair)
	if err == nil {
		err = i.readAgain(t, h, first)
	}
	return err
}

// readAgain reads what is kept in memory of an image that was repaired. If it cannot be read the image is taken for one that was not.
func (i *Image) readAgain(t *blockcore.Task, h *format.Header, first []byte) error {
	before := struct {
		header     *format.Header
		first      []byte
		firstBytes int
		l1         l1Table
		refs       refcounts
		snapshots  []format.Snapshot
	}{i.header, i.first, i.firstBytes, i.l1, i.refs, i.snapshots}
	i.header, i.first, i.firstBytes = h, first, h.Ends()
	var next terms
	err := i.readTables(t)
	i.refs.blocks = before.refs.blocks
	if err == nil {
		next, err = i.terms(t, i.options)
	}
	if err != nil {
		i.header, i.first, i.firstBytes, i.l1, i.refs, i.snapshots = before.header, before.first, before.firstBytes, before.l1, before.refs, before.snapshots
		return err
	}
	i.mends = false
	i.adopt(t, next)
	return nil
}
