package blockcore

// Driver is one layer of storage behind a Node: a file, an image format, a filter.
// Every other ability is one of the small interfaces below; a driver that lacks one gets the
// stated default. They are resolved once, when the Node is made.
//
// Methods with a *Task run on the AioContext of the node, may suspend through the
// Task and must not block in any other way. Ranges passed in lie inside Size and
// are multiples of Limits.Align; buffers are off the Go heap, and their addresses multiples of
// Limits.Align, or of 4096 where that is less. Several calls may be in progress at once.
//
// Errors carry a syscall.Errno (found by errors.As); that number decides what a client sees.
//
// Analogous to QEMU's BlockDriver.
type Driver interface {
	// Size returns the length of the storage in bytes, a multiple of Limits.Align. Safe from anywhere.
	Size() int64
	// ReadAt fills p from offset off. A short read is an error.
	ReadAt(t *Task, p []byte, off int64) error
	// Close releases everything. No other call is in progress and none follows. Data that
	// was not flushed may be lost: the owner flushes first.
	Close(t *Task) error
}

// Writer is a Driver that can be written. Default: the node is read-only.
type Writer interface {
	// WriteAt stores p at offset off. With WriteFUA the data is on stable storage on return.
	WriteAt(t *Task, p []byte, off int64, flags WriteFlags) error
}

// Flusher makes all writes that have returned durable. Default: there is nothing to make
// durable, Flush succeeds.
type Flusher interface {
	Flush(t *Task) error
}

// Zeroer writes zeroes more cheaply than with a buffer. Default: the Edge writes buffers of zeroes, unless
// ZeroNoFallback is set: then it is ENOTSUP.
//
// WriteZeroes returns an error with ENOTSUP, having changed nothing, when it can do no better than
// writing zeroes; the Edge then does so unless ZeroNoFallback is set. A range may be up to 4 GiB and more:
// the driver works in bounded pieces and lets others run in between.
type Zeroer interface {
	WriteZeroes(t *Task, r Range, flags ZeroFlags) error
}

// Discarder gives up the contents of a range. Default: Discard succeeds and does nothing.
type Discarder interface {
	Discard(t *Task, r Range) error
}

// Mapper tells what is allocated. Default: one extent of data.
type Mapper interface {
	// BlockStatus appends to exts the extents from r.Offset on, in order and without gaps, and returns
	// it. It appends at least one and at most max extents, whose lengths are multiples of Limits.Align; it may
	// stop short of r.End(); it does not go past Size. Neighbours may be equal: the caller merges them.
	BlockStatus(t *Task, r Range, exts []Extent, max int) ([]Extent, error)
}

// Prefetcher brings a range into a cache. Default: Prefetch succeeds and does nothing.
type Prefetcher interface {
	Prefetch(t *Task, r Range) error
}

// CacheTeller tells where the kernel holds a range in memory. Default: nowhere.
type CacheTeller interface {
	// CachedFile returns a file and an offset in it where all of r can be read by sendfile(2) without waiting
	// for a device, and ok = false when there is no such place or part of r is a hole. It neither blocks nor suspends. The
	// file stays open while the request is in flight.
	CachedFile(r Range) (fd int, off int64, ok bool)
}

// Limiter states what requests a driver takes. Default: Limits{Align: 1}.
type Limiter interface {
	Limits() Limits
}

// Features tells what cannot be seen from a driver's interfaces alone.
// Default: Features{}.
type Featurer interface {
	Features() Features
}

// Limits of the requests that a driver takes. Immutable once the driver is open.
type Limits struct {
	// Align is the power of two, 1 to 65536 bytes, that offsets, lengths and, up to 4096, buffer addresses
	// must be multiples of. The Edge widens what is not.
	Align int64
	// Preferred is the best size of a small request, in bytes; 0 = no preference.
	Preferred int64
	// TransferMax is the longest ReadAt or WriteAt, in bytes, a multiple of Align; 0 = no limit.
	TransferMax int64
}

// Features of a driver. Immutable once the driver is open.
type Features struct {
	// FastZero: a WriteZeroes with ZeroNoFallback has a chance to succeed.
	FastZero bool
	// Rotational: the storage seeks.
	Rotational bool
	// ReadOnly: opened without the right to write, whatever interfaces there are.
	ReadOnly bool
}

// WriteFlags modify a write.
type WriteFlags uint8

// WriteFUA asks for the data to be on stable storage when the call returns.
const WriteFUA WriteFlags = 1 << 0

// ZeroFlags modify WriteZeroes.
type ZeroFlags uint8

const (
	// ZeroFUA asks for the zeroes to be on stable storage when the call returns.
	ZeroFUA ZeroFlags = 1 << iota
	// ZeroMayUnmap allows the storage behind the range to be given back.
	// Without it the range stays fully provisioned: later writes do not meet ENOSPC.
	ZeroMayUnmap
	// ZeroNoFallback: fail with ENOTSUP, fast and without effect, rather than be as slow as a write.
	ZeroNoFallback
)

// Extent is a run of bytes of equal status, part of the answer to BlockStatus.
type Extent struct {
	Length int64 // bytes, not 0
	Status ExtentStatus
	// Depth is 0 when unallocated, 1 when allocated in the layer that was asked, 2 in its
	// first backing layer and so on.
	Depth uint32
}

// ExtentStatus is a set of facts about an Extent.
type ExtentStatus uint8

const (
	// ExtentHole: no storage is allocated.
	ExtentHole ExtentStatus = 1 << iota
	// ExtentZero: reads as zeroes.
	ExtentZero
)
