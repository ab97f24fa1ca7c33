package raw

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/imagelock"
)

// File is an open disk. All but its syncs and its views may be used by any number of contexts at once.
//
// Analogous to QEMU's file and host_device drivers under its raw format.
type File struct {
	opened

	// Immutable.
	path   string
	whole  string // path, from the root on
	lockFD int    // holds the image locks; -1 = none
	system system

	// Changed only by a Tx.
	node *blockcore.Node // nil = the file is in no graph
	// onlyRead: the file is only read, whatever it is open for, and others are kept from no more than that needs.
	onlyRead bool

	// Owned by the context.
	syncs    syncs
	formers  []*former        // openings that are to be given up
	retiring *blockcore.Chore // that gives them up; nil = there has been none
	// Of those who make the file longer, one works and the others wait.
	extending bool
	extenders blockcore.WaitQueue
	away      int // buffered writes that the engine makes now; each takes the kernel's lock of the inode
	discards  blockcore.DiscardCounts

	// Safe from anywhere.
	size    atomic.Int64
	damaged atomic.Pointer[syncFailure] // the first failed sync
	pace    pace                        // of writes
	walk    pace                        // of lookups in the map
	data    dataCache
	lacks   lacks
	// allocates: fallocate with mode 0 was seen to work.
	allocates atomic.Bool
}

// opened is how a file is opened now. Reopening exchanges it.
type opened struct {
	// Changed only by a Tx.
	options      Options
	fd           int
	locks        imagelock.Set // what is locked on lockFD
	device       device
	base         int64 // where the disk begins in the file
	eof          int64 // where the file ended when it was opened or resized
	directAlign  int64 // multiple that the kernel needs; 1 = none
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
	views *views // nil = the file is not mapped
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
	_ blockcore.Limiter   = (*File)(nil)
	_ blockcore.Featurer  = (*File)(nil)
	_ blockcore.Resizer   = (*File)(nil)
	_ blockcore.Reopener  = (*File)(nil)
	_ blockcore.Adopter   = (*File)(nil)

	_ blockcore.ContextFollower = (*File)(nil)
	_ blockcore.DiscardCounter  = (*File)(nil)
	_ blockcore.AccessChanger   = (*File)(nil)
	_ blockcore.Locker          = (*File)(nil)
)

// Filename returns the name under which the file was opened. Safe from anywhere.
func (f *File) Filename() string { return f.path }

// Size returns the length of the disk. Safe from anywhere.
func (f *File) Size() int64 { return f.size.Load() }

// Limits returns the alignment, found when it was opened. Safe from anywhere.
func (f *File) Limits() blockcore.Limits { return f.limits }

// Features returns what was found when it was opened. Safe from anywhere.
func (f *File) Features() blockcore.Features { return f.features }

// Path returns the name the file was opened by. Safe from anywhere.
func (f *File) Path() string { return f.path }

// WholePath returns that name from the root on, whatever the working directory is now. Safe from anywhere.
func (f *File) WholePath() string { return f.whole }

// Detach takes the file off a loop. It implements blockcore.ContextFollower.
func (f *File) Detach() { f.views.detach() }

// Attach takes it up on another one. It implements blockcore.ContextFollower.
func (f *File) Attach(ctx *blockcore.AioContext) { f.views.attach(ctx) }

// Close closes the file and gives its locks back.
func (f *File) Close(t *blockcore.Task) error {
	views, formers := f.views.takeAll(), f.formers
	f.formers = nil
	if f.retiring != nil {
		f.retiring.Cancel()
	}
	served.leave(f.device.number)
	return t.Block(func() error {
		_ = closeFormers(formers)
		closeViews(views)
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
