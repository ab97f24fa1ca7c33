package qcow2

import (
	"sync/atomic"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
	"nbd-dataplane/blockcore"
)

// Image is an open qcow2 image.
//
// Analogous to QEMU's qcow2 driver.
type Image struct {
	// Immutable.
	g       format.Geometry
	version uint32

	// Changed only by a Tx.
	node      *blockcore.Node // nil before the image is in a graph
	options   Options
	readOnly  bool
	lazy      bool // refcounts are not written before Close
	passes    [freeKinds]bool
	external  bool // data is in a file of its own
	externRaw bool // which can be read without the image

	// Owned by the context.
	header *format.Header
	first  []byte // the first cluster as it is on disk
	// firstBytes is how much of first means something.
	firstBytes int
	l1         l1Table
	l2         *cache
	refs       refcounts
	metas      metadata // what must not be written over
	changes    blockcore.RangeLocks
	grace      grace
	writing    epochs // of writes in place
	kept       keptPlaces
	commits    commits
	inflate    inflater
	pack       packer
	headers    single // changes of the header
	// unordered: L2 or L1 entries have changed that refer to something which need not be on disk yet.
	unordered bool
	// unmarked: the header says things that are not true any more when something is written, or it is unsure what it says.
	unmarked bool
	modest   bool // entries do not say that they are alone, though they are: putting that right has failed
	unsure   bool // which header is on disk, the last change of it has failed
	through  bool // each write is durable when it returns
	// synced is the node below that was synced last; nil = none was. What a file has that was not may be in a cache only, and reach the disk never: who wrote it before us
	// need not have synced it.
	synced    *blockcore.Node
	snapshots []format.Snapshot
	bitmaps   bitmaps
	mends     bool // it was not closed, and is to be repaired before it is written
	broken    bool // by corruption: no request is taken any more
	told      bool // of a corruption that is not fatal
	shows     bool // a snapshot, and not the disk as it is
	cleaner   cleaner

	// Safe from anywhere. Changed only by a Tx.
	file, backing, data atomic.Pointer[blockcore.Edge]
	size                atomic.Int64
}

// The abilities of an Image.
var (
	_ blockcore.Driver         = (*Image)(nil)
	_ blockcore.Writer         = (*Image)(nil)
	_ blockcore.Flusher        = (*Image)(nil)
	_ blockcore.Zeroer         = (*Image)(nil)
	_ blockcore.Compressor     = (*Image)(nil)
	_ blockcore.Discarder      = (*Image)(nil)
	_ blockcore.Mapper         = (*Image)(nil)
	_ blockcore.Parent         = (*Image)(nil)
	_ blockcore.ChildChecker   = (*Image)(nil)
	_ blockcore.ChildPermitter = (*Image)(nil)
	_ blockcore.Featurer       = (*Image)(nil)
	_ blockcore.Limiter        = (*Image)(nil)
	_ blockcore.Adopter        = (*Image)(nil)
	_ blockcore.Snapshotter    = (*Image)(nil)

	_ blockcore.SnapshotExpecter = (*Image)(nil)
)

// Size returns the length of the disk. As in QEMU it is made of whole sectors. Safe from anywhere.
func (i *Image) Size() int64 { return i.size.Load() }

// SetNode implements blockcore.Adopter. The node gets the bitmaps that were found.
func (i *Image) SetNode(n *blockcore.Node) {
	i.node = n
	n.AdoptBitmaps(i.bitmaps.list)
}

// Limits returns that anything goes; a cluster is best. Safe from anywhere.
func (i *Image) Limits() blockcore.Limits {
	return blockcore.Limits{Align: 1, Preferred: i.g.SubclusterBytes()}
}

// ClusterBytes is the size of a cluster. Safe from anywhere.
func (i *Image) ClusterBytes() int64 { return i.g.ClusterBytes() }

// Features of an image. Safe from anywhere.
func (i *Image) Features() blockcore.Features {
	return blockcore.Features{FastZero: i.version >= 3 && !i.externRaw, ReadOnly: i.readOnly, Backing: true}
}

// Header returns a copy of the header's fields. On the loop.
func (i *Image) Header() format.Header { return *i.header }

// usable refuses requests to an image that is known to be corrupt.
func (i *Image) usable() error {
	if i.broken {
		return syscall.ENOMEDIUM
	}
	return nil
}

// writable refuses changes.
func (i *Image) writable() error {
	if i.readOnly {
		return syscall.EROFS
	}
	return i.usable()
}

func (i *Image) warn(text string) {
	if i.options.Warn != nil {
		i.options.Warn(text)
	}
}

// NeedsDataFile reports whether guest data is in a file of its own. Safe from anywhere.
func (i *Image) NeedsDataFile() bool { return i.external }

// WriteThrough has each write be durable when it returns, as cache=writethrough does. On the loop.
func (i *Image) WriteThrough() { i.through = true }
