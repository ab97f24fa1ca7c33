package blockcore

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Filter is a driver that shows its one child, in RoleFile, unchanged. Filters embed it and replace what they do in another way. It has
// all abilities: where the child lacks one, the child's Edge has the default for it.
//
// The zero value is ready to be put on top of a node.
type Filter struct {
	// Safe from anywhere. Changed only by a Tx.
	file atomic.Pointer[Edge]
}

// The abilities of a Filter.
var (
	_ Driver       = (*Filter)(nil)
	_ Writer       = (*Filter)(nil)
	_ Flusher      = (*Filter)(nil)
	_ Zeroer       = (*Filter)(nil)
	_ Discarder    = (*Filter)(nil)
	_ Mapper       = (*Filter)(nil)
	_ Prefetcher   = (*Filter)(nil)
	_ CacheTeller  = (*Filter)(nil)
	_ CacheSender  = (*Filter)(nil)
	_ Resizer      = (*Filter)(nil)
	_ Extender     = (*Filter)(nil)
	_ Reserver     = (*Filter)(nil)
	_ Parent       = (*Filter)(nil)
	_ ChildChecker = (*Filter)(nil)
	_ Limiter      = (*Filter)(nil)
	_ Featurer     = (*Filter)(nil)
	_ Stretcher    = (*Filter)(nil)
)

// File returns the edge to the child, nil = there is none. Safe from anywhere.
func (f *Filter) File() *Edge { return f.file.Load() }

// SetChild takes the child of RoleFile; a filter has no other.
func (f *Filter) SetChild(role Role, e *Edge) {
	if role == RoleFile {
		f.file.Store(e)
	}
}

// CheckChildren refuses to be without a child.
func (f *Filter) CheckChildren() error {
	if f.File() == nil {
		return fmt.Errorf("A block device must be specified for %q", RoleFile)
	}
	return nil
}

// Size returns that of the child. Safe from anywhere.
func (f *Filter) Size() int64 {
	if e := f.File(); e != nil {
		return e.Node().Size()
	}
	return 0
}

// SizeOver is the size of the child. Safe from anywhere.
func (f *Filter) SizeOver(childBytes int64) (sizeBytes int64, err error) { return childBytes, nil }

// Limits returns that anything goes: the child's Edge widens and splits. Only there is the lock that keeps all apart who write to the
// child, through the filter and past it. Safe from anywhere.
func (f *Filter) Limits() Limits {
	l := Limits{Align: 1}
	if e := f.File(); e != nil {
		below := e.Node().Limits()
		l.Preferred = below.Preferred
		if below.Align > 1 {
			l.Preferred = max(l.Preferred, below.Align)
		}
	}
	return l
}

// Features returns those of the child. Safe from anywhere.
func (f *Filter) Features() Features {
	is := Features{ReadOnly: true}
	if e := f.File(); e != nil {
		is = e.Node().Features()
		is.ReadOnly = !e.Node().Writable()
	}
	is.Filter, is.Independent = true, false
	return is
}

// ReadAt reads from the child.
func (f *Filter) ReadAt(t *Task, p []byte, off int64) error {
	return f.File().Read(t, p, off)
}

// WriteAt writes to the child.
func (f *Filter) WriteAt(t *Task, p []byte, off int64, flags WriteFlags) error {
	return f.File().Write(t, p, off, flags)
}

// Flush flushes the child. A filter whose child is gone is about to be closed, and holds nothing back.
func (f *Filter) Flush(t *Task) error {
	if e := f.File(); e != nil {
		return e.Flush(t)
	}
	return nil
}

// WriteZeroes zeroes a range of the child.
func (f *Filter) WriteZeroes(t *Task, r Range, flags ZeroFlags) error {
	return f.File().WriteZeroes(t, r, flags)
}

// Discard discards a range of the child.
func (f *Filter) Discard(t *Task, r Range) error { return f.File().Discard(t, r, false) }

// BlockStatus returns the map of the child: a filter is no layer of its own.
func (f *Filter) BlockStatus(t *Task, r Range, exts []Extent, max int) ([]Extent, error) {
	return f.File().BlockStatus(t, r, exts, max)
}

// Prefetch has the child bring a range into its cache.
func (f *Filter) Prefetch(t *Task, r Range) error { return f.File().Prefetch(t, r) }

// CachedFile tells where the child has a range in memory.
func (f *Filter) CachedFile(r Range) (fd int, off int64, ok bool) { return f.File().CachedFile(r) }

// Sent has the child count a read that was sent past it.
func (f *Filter) Sent(t *Task, since time.Duration, bytes int64) { f.File().Sent(t, since, bytes) }

// Resize changes the size of the child.
func (f *Filter) Resize(t *Task, sizeBytes int64) error { return f.File().Resize(t, sizeBytes) }

// Extend makes the child longer.
func (f *Filter) Extend(t *Task, toBytes int64) error { return f.File().Extend(t, toBytes) }

// Reserve has the child set space apart.
func (f *Filter) Reserve(t *Task, r Range) error { return f.File().Reserve(t, r) }

// Close has nothing to do: the child is a node of its own.
func (f *Filter) Close(*Task) error { return nil }
