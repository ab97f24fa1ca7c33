package raw

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
)

// File is an open disk. All but its syncs may be used by any number of contexts at once.
//
// Analogous to QEMU's file and host_device drivers under its raw format.
type File struct {
	// Immutable.
	path         string
	fd           int
	lockFD       int // holds the image locks; -1 = none
	system       system
	device       device
	base         int64 // where the disk begins in the file
	directAlign  int64 // multiple that the kernel needs; 1 = none
	fixed        bool  // the disk is a window that somebody gave a size
	readOnly     bool
	direct       bool // O_DIRECT
	syncless     bool // cache=unsafe
	writethrough bool
	unmap        bool
	detect       DetectZeroes
	guard        func(block0 []byte) error
	limits       blockcore.Limits
	features     blockcore.Features

	// Owned by the context.
	syncs syncs

	// Safe from anywhere.
	size    atomic.Int64
	eof     atomic.Int64                // where the file ended when it was opened or resized; others may move it back
	damaged atomic.Pointer[syncFailure] // the first failed sync
	pace    pace                        // of writes
	walk    pace                        // of lookups in the map
	data    dataCache
	lacks   lacks
	// allocates: fallocate with mode 0 was seen to work.
	allocates atomic.Bool
}

// lacks remembers what the file system turned out not to support, so that each is tried once.
type lacks struct {
	// Safe from anywhere.
	readNow   atomic.Bool // RWF_NOWAIT reads
	cachestat atomic.Bool // cachestat(2)
	writeNow  atomic.Bool // RWF_NOWAIT writes
	punch     atomic.Bool // FALLOC_FL_PUNCH_HOLE
	zeroRange atomic.Bool // FALLOC_FL_ZERO_RANGE
	allocate  atomic.Bool // fallocate with mode 0
	discard   atomic.Bool // BLKDISCARD
	seek      atomic.Bool // SEEK_DATA
}

// The abilities of a File.
var (
	_ blockcore.Driver    = (*File)(nil)
	_ blockcore.Writer    = (*File)(nil)
	_ blockcore.Flusher   = (*File)(nil)
	_ blockcore.Zeroer    = (*File)(nil)
	_ blockcore.Discarder = (*File)(nil)
	_ blockcore.Mapper    = (*File)(nil)
	_ blockcore.Resizer   = (*File)(nil)
	_ blockcore.Limiter   = (*File)(nil)
	_ blockcore.Featurer  = (*File)(nil)
)

// Size returns the length of the disk. Safe from anywhere.
func (f *File) Size() int64 { return f.size.Load() }

// Limits returns the alignment, found at open. Safe from anywhere.
func (f *File) Limits() blockcore.Limits { return f.limits }

// Features returns what was found at open. Safe from anywhere.
func (f *File) Features() blockcore.Features { return f.features }

// Path returns the name the file was opened by. Safe from anywhere.
func (f *File) Path() string { return f.path }

// Close closes the file and gives its locks back.
func (f *File) Close(t *blockcore.Task) error {
	return t.Block(func() error {
		err := unix.Close(f.fd)
		if f.lockFD >= 0 {
			unix.Close(f.lockFD)
		}
		if err != nil {
			return fmt.Errorf("close %s: %w", f.path, err)
		}
		return nil
	})
}

// fail names what was being done.
func (f *File) fail(doing string, pos int64, err error) error {
	return fmt.Errorf("%s %s at %#x: %w", doing, f.path, pos, err)
}

// durable reports whether a request that does, or does not, ask for FUA has to be on stable storage on return.
func (f *File) durable(fua bool) bool {
	return (fua || f.writethrough) && !f.syncless
}
