package filters

import (
	"fmt"
	"math"
	"sync/atomic"
	"syscall"

	"nbd-dataplane/blockcore"
)

// RawOptions configure a Raw. The zero value shows all of the file.
type RawOptions struct {
	// Offset is where in the file the disk begins, in bytes.
	Offset int64
	// SizeBytes is the length of the disk; 0 = to the end of the file, wherever that comes to be.
	SizeBytes int64
}

// check words what is wrong as QEMU does.
func (o *RawOptions) check() error {
	switch {
	case o.Offset < 0:
		return fmt.Errorf("offset %d is negative", o.Offset)
	case o.SizeBytes < 0:
		return fmt.Errorf("size %d is negative", o.SizeBytes)
	case o.SizeBytes%sectorBytes != 0:
		return fmt.Errorf("Specified size is not multiple of %d", sectorBytes)
	}
	return nil
}

// fits refuses a window that the file does not have.
func (o *RawOptions) fits(fileBytes int64) error {
	if fileBytes < o.Offset || fileBytes-o.Offset < o.SizeBytes {
		return fmt.Errorf("The sum of offset (%d) and size (%d) has to be smaller or equal to the  actual size of the containing file (%d)",
			o.Offset, o.SizeBytes, fileBytes)
	}
	return nil
}

// Raw is the format without a header: the disk is the file, or a window of it.
//
// Analogous to QEMU's raw driver.
type Raw struct {
	blockcore.Filter

	// Safe from anywhere. Changed only by a Tx.
	options atomic.Pointer[RawOptions]
}

// The abilities of a Raw besides those of a Filter.
var (
	_ blockcore.Reopener  = (*Raw)(nil)
	_ blockcore.Stretcher = (*Raw)(nil)
)

// NewRaw returns a window.
func NewRaw(o RawOptions) (*Raw, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	f := &Raw{}
	f.options.Store(&o)
	return f, nil
}

// CheckChildren refuses a file that does not have the window.
func (f *Raw) CheckChildren() error {
	if err := f.Filter.CheckChildren(); err != nil {
		return err
	}
	return f.options.Load().fits(f.Filter.Size())
}

// SizeOver refuses a file that would not have the window any more. Safe from anywhere.
func (f *Raw) SizeOver(childBytes int64) (sizeBytes int64, err error) {
	o := f.options.Load()
	if o.SizeBytes > 0 {
		return o.SizeBytes, o.fits(childBytes)
	}
	return childBytes - o.Offset, o.fits(childBytes)
}

// PrepareReopen takes another window. options are RawOptions.
func (f *Raw) PrepareReopen(t *blockcore.Task, options any) (commit, abort func(*blockcore.Task), err error) {
	o, ok := options.(RawOptions)
	if !ok {
		return nil, nil, fmt.Errorf("%T are no options of the raw format: %w", options, syscall.EINVAL)
	}
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	before := f.options.Swap(&o)
	return func(*blockcore.Task) {}, func(*blockcore.Task) { f.options.Store(before) }, nil
}

// Size returns the length of the window. Safe from anywhere.
func (f *Raw) Size() int64 {
	o := f.options.Load()
	if o.SizeBytes > 0 {
		return o.SizeBytes
	}
	return max(f.Filter.Size()-o.Offset, 0)
}

// Features returns those of the file. A format is no filter, even where it changes nothing. Safe from anywhere.
func (f *Raw) Features() blockcore.Features {
	is := f.Filter.Features()
	is.Filter, is.Independent = false, true
	return is
}

func (f *Raw) place(off int64) int64 { return f.options.Load().Offset + off }

func (f *Raw) shift(r blockcore.Range) blockcore.Range {
	return blockcore.Range{Offset: f.place(r.Offset), Length: r.Length}
}

// ReadAt reads from the window.
func (f *Raw) ReadAt(t *blockcore.Task, p []byte, off int64) error {
	return f.Filter.ReadAt(t, p, f.place(off))
}

// WriteAt writes to the window.
func (f *Raw) WriteAt(t *blockcore.Task, p []byte, off int64, flags blockcore.WriteFlags) error {
	return f.Filter.WriteAt(t, p, f.place(off), flags)
}

// WriteZeroes zeroes a range of the window.
func (f *Raw) WriteZeroes(t *blockcore.Task, r blockcore.Range, flags blockcore.ZeroFlags) error {
	return f.Filter.WriteZeroes(t, f.shift(r), flags)
}

// Discard discards a range of the window.
func (f *Raw) Discard(t *blockcore.Task, r blockcore.Range) error {
	return f.Filter.Discard(t, f.shift(r))
}

// BlockStatus returns the map of the window.
func (f *Raw) BlockStatus(t *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	return f.Filter.BlockStatus(t, f.shift(r), exts, max)
}

// Prefetch has the file bring a range of the window into its cache.
func (f *Raw) Prefetch(t *blockcore.Task, r blockcore.Range) error {
	return f.Filter.Prefetch(t, f.shift(r))
}

// CachedFile tells where the file has a range of the window in memory.
func (f *Raw) CachedFile(r blockcore.Range) (fd int, off int64, ok bool) {
	return f.Filter.CachedFile(f.shift(r))
}

// Resize has the file end where the window is to end.
func (f *Raw) Resize(t *blockcore.Task, sizeBytes int64) error {
	o := f.options.Load()
	if o.SizeBytes > 0 {
		return fmt.Errorf("Cannot resize fixed-size raw disks: %w", syscall.ENOTSUP)
	}
	if sizeBytes > math.MaxInt64-o.Offset {
		return fmt.Errorf("Disk size too large for the chosen offset: %w", syscall.EINVAL)
	}
	return f.Filter.Resize(t, o.Offset+sizeBytes)
}

// Extend has the file end where the window is to end, at least.
func (f *Raw) Extend(t *blockcore.Task, toBytes int64) error {
	o := f.options.Load()
	if o.SizeBytes > 0 || toBytes > math.MaxInt64-o.Offset {
		return fmt.Errorf("the window ends at %d bytes: %w", f.Size(), syscall.ENOSPC)
	}
	return f.Filter.Extend(t, o.Offset+toBytes)
}

// Reserve has the file set space for a part of the window apart.
func (f *Raw) Reserve(t *blockcore.Task, r blockcore.Range) error {
	return f.Filter.Reserve(t, f.shift(r))
}
