package blockcore

import "time"

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

// Forgetful is a driver that may keep nothing of what it is given: then no change of the graph has to flush it first. A client's
// FLUSH comes through all the same. Default: it keeps what it is given.
type Forgetful interface {
	Forgets() bool // always the same
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

// Compressor stores what is written with WriteCompressed in less space. Default: such a write is ENOTSUP.
type Compressor interface {
	// CompressedUnit is how many bytes are compressed together, a power of two: a compressed write begins at a multiple of it, and ends at one or with the
	// storage. 0 = as things are nothing can be compressed, ENOTSUP. It changes only with the children. Safe from anywhere.
	CompressedUnit() int64
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

// CacheSender passes a CachedFile of its child on as its own. Default: what is sent past it is read from no child.
type CacheSender interface {
	// Sent has the child count a read that was sent past it, as Edge.Sent does. On the loop.
	Sent(t *Task, since time.Duration, bytes int64)
}

// DiscardCounter counts the discards that it has passed on to what it stands on. Default: nobody is told.
type DiscardCounter interface {
	// DiscardCounts returns the counts. On the loop.
	DiscardCounts() DiscardCounts
}

// DiscardCounts are the discards that a driver has passed on.
type DiscardCounts struct {
	Done, Failed uint64
	Bytes        uint64 // of those done
}

// Resizer changes the size. Default: the size is fixed, ENOTSUP.
type Resizer interface {
	// Resize makes the storage sizeBytes long, a multiple of Limits.Align; what is new reads as zeroes. The node is
	// drained. On an error the size is what Size says.
	Resize(t *Task, sizeBytes int64) error
}

// Extender becomes longer when a parent wants to write behind its end, as an image in a file does. Default: it does not, ENOSPC.
type Extender interface {
	// Extend makes the storage at least toBytes long, a multiple of Limits.Align; what is new reads as zeroes until it is written.
	// Unlike Resize it comes while the node is in use, from any number of Tasks. On an error the size is what Size says.
	Extend(t *Task, toBytes int64) error
}

// Reserver sets space of what it lies in apart. Default: it cannot, ENOTSUP.
type Reserver interface {
	// Reserve has writes to r find their space there already; what r reads as stays. An empty range asks whether it can be done at all. It may have
	// done a part when it fails.
	Reserve(t *Task, r Range) error
}

// Quiescer takes part in drains. Default: the driver does nothing by itself, so there is nothing to stop.
//
// Work of its own that a driver registers as a Chore is stopped without this.
type Quiescer interface {
	// Quiesce has the driver let go what it keeps back, and start nothing by itself. It neither waits nor suspends: what is to
	// be waited for is counted (Node.Background). On the loop, in no Task.
	Quiesce()
	// Resume undoes Quiesce.
	Resume()
}

// ContextFollower is told when its node changes the AioContext. Default: the driver keeps nothing that belongs to one.
type ContextFollower interface {
	// Detach gives up timers and watchers. The node is drained. On the old loop, in no Task.
	Detach()
	// Attach takes them up again. On the new loop, in no Task.
	Attach(ctx *AioContext)
}

// ChildPermitter says what a driver needs of its children. Default: what is asked of itself, and it shares what its
// parents share, as a filter does.
type ChildPermitter interface {
	// ChildPermissions returns the permissions to be taken on a child in role and those to be shared, when the parents
	// of the node take perm and all share shared. Safe from anywhere.
	ChildPermissions(role Role, perm, shared Permissions) (takes, shares Permissions)
}

// Parent is a Driver that has children. Default: it has none.
type Parent interface {
	// SetChild hands over the edge through which the driver reaches its child in a role, before the first request. What is behind
	// the edge may change while the node is drained. A nil edge: the child is gone.
	SetChild(role Role, e *Edge)
}

// ChildChecker judges the children that a change of the graph gives it, before the change stands. Default: any will do.
type ChildChecker interface {
	// CheckChildren returns why the driver cannot work on what it has now. In the control plane, while the graph is looked at: it
	// asks its children what they are, and not the graph.
	CheckChildren() error
}

// Stretcher judges another size of its child before the child is given it. Default: any will do.
type Stretcher interface {
	// SizeOver returns how long the driver would be over a child of childBytes, or why it cannot be. Safe from anywhere.
	SizeOver(childBytes int64) (sizeBytes int64, err error)
}

// Reopener takes over other options in a drained section. Default: the options are fixed, ENOTSUP.
type Reopener interface {
	// PrepareReopen has the driver be what options say, which are complete and of the driver's own type, and keeps what it was until
	// commit drops that or abort has the driver be it again. One of the two follows in the same section; neither can fail. A nil commit: there is
	// nothing to drop. On an error nothing has changed.
	PrepareReopen(t *Task, options any) (commit, abort func(t *Task), err error)
}

// AccessChanger is a Reopener that gains and loses the right to write with its node (Tx.SetAccess). Default: it does not care.
type AccessChanger interface {
	// OptionsFor returns the options for PrepareReopen by which nothing changes but the right to write; nil = the driver stays as it is. In the
	// control plane.
	OptionsFor(readOnly bool) (options any)
}

// Mender puts right what is in the way of writing. Default: nothing is.
type Mender interface {
	// Mend is the last part of a change that has given the driver other options, and has given its edges the permissions that these need. The node is
	// drained. On an error the change does not stand.
	Mend(t *Task) error
}

// Locker keeps other processes from what would be in the way of who uses the node. Default: there are none.
type Locker interface {
	// PrepareLocks keeps others from less while the node is only read, and from all that its options call for otherwise. What it keeps them from
	// besides it does at once, and what it does not any more until commit; abort has all be as before. In the control plane, or on the loop for a
	// change that is made there: it does not wait. On an error nothing has changed.
	PrepareLocks(onlyRead bool) (commit, abort func(), err error)
}

// Snapshotter keeps states of its disk inside of itself. Default: it does not, ENOTSUP.
type Snapshotter interface {
	// Snapshots lists them, oldest first.
	Snapshots(t *Task) ([]Snapshot, error)
	// CreateSnapshot keeps the disk as it is now, DeleteSnapshot gives a snapshot up, and ApplySnapshot makes the disk what it was at a
	// snapshot, its size too. The node is drained, and flushed but for CreateSnapshot, which makes durable itself what it keeps. On an error nothing has
	// changed, but for DeleteSnapshot, which may leave less space than it should.
	CreateSnapshot(t *Task, name string, taken time.Time) (id string, err error)
	DeleteSnapshot(t *Task, id string) error
	ApplySnapshot(t *Task, id string) error
}

// SnapshotExpecter does ahead of CreateSnapshot, while the disk is used, what need not be done in the section. Default: there is nothing.
type SnapshotExpecter interface {
	// ExpectSnapshot is told that a snapshot is to be taken, or that none is after all.
	ExpectSnapshot(t *Task, expected bool)
}

// BackingNamer writes down what the image below is called, for who opens it next. Default: it does not, ENOTSUP.
type BackingNamer interface {
	// BackingName returns what is written down; "" = nothing.
	BackingName() (name, format string)
	// NameBacking writes another name down. The node is drained.
	NameBacking(t *Task, name, format string) error
}

// Adopter is told which Node a Driver has become. Default: it need not know.
type Adopter interface {
	SetNode(n *Node)
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

// Limits of the requests that a driver takes. They change only with its children.
type Limits struct {
	// Align is the power of two, 1 to 65536 bytes, that offsets, lengths and, up to 4096, buffer addresses
	// must be multiples of. The Edge widens what is not.
	Align int64
	// Preferred is the best size of a small request, in bytes; 0 = no preference.
	Preferred int64
	// TransferMax is the longest ReadAt or WriteAt, in bytes, a multiple of Align; 0 = no limit.
	TransferMax int64
}

// Features of a driver. They change only with its children.
type Features struct {
	// FastZero: a WriteZeroes with ZeroNoFallback has a chance to succeed.
	FastZero bool
	// Rotational: the storage seeks.
	Rotational bool
	// ReadOnly: opened without the right to write, whatever interfaces there are.
	ReadOnly bool
	// MainOnly: the driver runs on the graph's main AioContext and on no other.
	MainOnly bool
	// Backing: the driver can be put on top of another image, which it then reads where it has nothing.
	Backing bool
	// Filter: the node shows what is below it, unchanged; it is passed through where a chain of images is looked at.
	Filter bool
	// Independent: a request of a Task is passed on by it, and has nothing done that other requests wait for.
	Independent bool
}

// Snapshot is a state of a disk that its driver keeps.
type Snapshot struct {
	ID, Name     string
	Taken        time.Time
	VMClock      time.Duration // how long the virtual machine had run
	VMStateBytes uint64
	DiskBytes    int64
	Instructions uint64 // that the virtual machine had executed, if Counted
	Counted      bool
}

// WriteFlags modify a write.
type WriteFlags uint8

const (
	// WriteFUA asks for the data to be on stable storage when the call returns.
	WriteFUA WriteFlags = 1 << iota
	// WriteUnchanged: the data is what is read there already. PermWriteUnchanged is enough for that.
	WriteUnchanged
	// WriteHeld: whoever writes holds the range (Edge.Hold). Drivers do not see it.
	WriteHeld
	// WriteCompressed asks for the data to be stored compressed, where that makes it smaller. What is written has to be whole units of a Compressor.
	WriteCompressed
)

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
	// ZeroUnchanged: the range reads as zeroes already. PermWriteUnchanged is enough for that.
	ZeroUnchanged
	// ZeroHeld: whoever writes holds the range (Edge.Hold). Drivers do not see it.
	ZeroHeld
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
