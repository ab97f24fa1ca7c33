package qcow2

import (
	"fmt"
	"math/bits"
	"syscall"

	"nbd-dataplane/backends/qcow2/format"
)

// Options say how an image is used. The zero value is QEMU's default.
type Options struct {
	// ReadOnly opens the image without the right to write.
	ReadOnly bool
	// Unmap lets discards, and zeroes that may unmap, give clusters back (discard=unmap).
	Unmap bool
	// DetectZeroes turns writes of zeroes into WriteZeroes, which give clusters back with DetectUnmap.
	DetectZeroes DetectZeroes
	// LazyRefcounts overrides what the image says; nil = as it says.
	LazyRefcounts *bool
	// PassDiscardRequest hands clusters that a discard freed down to the file; nil = if Unmap is set. PassDiscardSnapshot, default
	// true, those that a deleted snapshot had, PassDiscardOther all others.
	PassDiscardRequest, PassDiscardSnapshot, PassDiscardOther *bool
	// Overlap says what writes are compared with.
	Overlap OverlapCheck
	// Caches are the sizes of the metadata caches.
	Caches CacheSizes
	// CacheCleanInterval is after how many seconds a piece of metadata that nobody has used is dropped from the caches; 0 = never, nil = 600.
	CacheCleanInterval *int64
	// Warn is told, in one line each, of what is wrong with the image but does not keep it from being used. May be nil.
	Warn func(string)
	// OnCorrupted is told of corruption. On the loop. May be nil.
	OnCorrupted func(Corruption)
	// Repair puts the refcounts of an image right that was not closed, in the file that it was opened on. nil = such an image cannot be
	// opened for writing.
	Repair RepairFunc
}

// DetectZeroes says what becomes of a write of zeroes.
type DetectZeroes uint8

const (
	DetectOff   DetectZeroes = iota
	DetectOn                 // zeroed, clusters kept
	DetectUnmap              // zeroed, clusters given back
)

// CacheSizes are the sizes of the metadata caches in bytes, under QEMU's names; nil = not given.
type CacheSizes struct {
	Cache    *int64 // cache-size: both together
	L2       *int64 // l2-cache-size
	Refcount *int64 // refcount-cache-size
	// L2Entry is l2-cache-entry-size: what is read and kept of L2 tables at once. By default it is a page, which maps 32 MiB in
	// clusters of 64 KiB, and not as in QEMU up to 64 KiB: random I/O on a large disk then reads a sixteenth of the metadata, and a
	// cache of some size serves sixteen times as many places.
	L2Entry *int64
}

const (
	l2CacheMax       = 32 << 20 // by default
	l2EntryBytes     = 4 << 10  // by default, see CacheSizes
	refBlocksMin     = 4
	l2PiecesMin      = 2
	l2EntryBytesLow  = 512
	cacheBytesAtMost = 1 << 40 // no size overflows anything
)

// cachePlan is what CacheSizes come to for an image.
type cachePlan struct {
	l2Pieces, refBlocks int
	l2PieceBytes        int64
}

// plan works the sizes out, in QEMU's way and words.
func (c CacheSizes) plan(g format.Geometry, diskBytes int64) (cachePlan, error) {
	bad := func(text string, args ...any) (cachePlan, error) {
		return cachePlan{}, &format.Error{Errno: syscall.EINVAL, Text: fmt.Sprintf(text, args...)}
	}
	for _, o := range []struct {
		name  string
		bytes *int64
	}{{"cache-size", c.Cache}, {"l2-cache-size", c.L2}, {"refcount-cache-size", c.Refcount}, {"l2-cache-entry-size", c.L2Entry}} {
		switch {
		case o.bytes == nil:
		case *o.bytes < 0:
			return bad("Parameter '%s' expects a non-negative number below 2^64", o.name)
		case *o.bytes > cacheBytesAtMost:
			return bad("Parameter '%s' expects at most %d bytes", o.name, int64(cacheBytesAtMost))
		}
	}
	clusterBytes := g.ClusterBytes()
	entry := min(clusterBytes, l2EntryBytes)
	if c.L2Entry != nil {
		entry = *c.L2Entry
	}
	if entry < l2EntryBytesLow || entry > clusterBytes || bits.OnesCount64(uint64(entry)) != 1 {
		return bad("L2 cache entry size must be a power of two between %d and the cluster size (%d)", l2EntryBytesLow, clusterBytes)
	}
	refMin := refBlocksMin * clusterBytes
	// What maps the whole disk.
	all := (g.Clusters(diskBytes)*int64(g.L2EntryBytes()) + entry - 1) &^ (entry - 1)
	l2, ref := min(all, l2CacheMax), refMin
	if c.Cache == nil {
		if c.L2 != nil {
			l2 = *c.L2
		}
		if c.Refcount != nil {
			ref = *c.Refcount
		}
	} else {
		switch {
		case c.L2 != nil && c.Refcount != nil:
			return bad("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
		case c.L2 != nil && *c.L2 > *c.Cache:
			return bad("l2-cache-size may not exceed cache-size")
		case c.Refcount != nil && *c.Refcount > *c.Cache:
			return bad("refcount-cache-size may not exceed cache-size")
		case c.L2 != nil:
			l2, ref = *c.L2, *c.Cache-*c.L2
		case c.Refcount != nil:
			l2, ref = *c.Cache-*c.Refcount, *c.Refcount
		case *c.Cache >= all+refMin: // the L2 tables first: all of them, if they fit
			l2, ref = all, *c.Cache-all
		default:
			ref = min(*c.Cache, refMin)
			l2 = *c.Cache - ref
		}
	}
	return cachePlan{
		l2Pieces: int(max(l2/entry, l2PiecesMin)), refBlocks: int(max(ref/clusterBytes, refBlocksMin)), l2PieceBytes: entry,
	}, nil
}

// orDefault is the value of an option that need not be given.
func orDefault(b *bool, def bool) bool {
	if b != nil {
		return *b
	}
	return def
}
