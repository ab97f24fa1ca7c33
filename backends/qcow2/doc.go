// Package qcow2 is the Driver for qcow2 images. An Image stands on a file (blockcore.RoleFile), which it makes longer as it allocates, may
// stand on a backing image, of which it shows what it does not have itself, and may keep its data in an external file.
// Package format knows what the bytes mean; here is when they are written.
//
// # Where things are
//
//	a guest offset           in the file
//	L1 (in memory) -> L2 table -> cluster        l1.go, l2.go, mapping.go
//	refcount table (in memory) -> refcount block refcount.go, allocate.go, reftable.go
//
// Pieces of L2 tables and refcount blocks are kept in two bounded caches (cache.go). A request for a mapped cluster whose piece is there neither
// suspends nor takes a lock before its I/O, and no other Task does a part of it.
//
// # What is written when
//
// Nothing refers on disk to what is not on disk. Changes are made in memory and reach the disk by a commit (commit.go), of which there is one at a time:
//
//	0  refcount blocks that are new, if there are any                              -> sync
//	1  refcount blocks, refcount table                                             -> sync
//	2  L2 tables and L1 entries, as they were when the commit began                -> sync
//	3  what these do not refer to any more is free: refcounts go down, in memory
//
// Data was written before the L2 entry changed in memory, so the sync of step 1 covers it too: what is in a cluster is there before the cluster can be
// seen. A new L2 table is written whole before the L1 entry changes. The L2 tables that change while the commit waits are copied first (table.frozen).
// Refcounts only go up before a reference and only go down after it, so the worst that a crash can leave is a cluster that nobody uses. And a cluster
// is not used again before nothing on disk leads to it.
//
// The guest's flush is a commit. So is what makes room in a cache that has nothing clean, the end of a section of lazy refcounts, and Close.
// With lazy refcounts step 1 writes no refcounts: the dirty bit, which is set before the first change, tells who opens the image that they have to be counted.
//
// Snapshots go by the same rule, in a drained section, where nothing else is under way (snapshot.go): counts go up before the header refers to a table that
// needs them, and down after; the header changes with one sector. Until entries agree with the counts again the dirty bit says that they may not; it is
// there before the section of a new snapshot begins (ExpectSnapshot), which holds two syncs then, or three if clients have allocated.
//
// # Who waits for whom
//
// Requests that change L2 entries hold the range of their clusters alone (Image.changes): to allocate, to zero, to discard. Others wait for none of these: they
// see the old mapping or the new one. What is in flight to a cluster that is freed meanwhile ends before the cluster is used again (grace.go), and what is in
// flight to one that is zeroed and stays where it is, before that is written to again (kept.go).
//
// INVARIANT: while a range is held, nobody else changes L2 entries of its clusters.
//
// Guest memory is never lent to two writes; copy-on-write is merged with the guest's data where that fits into one buffer (cow.go).
//
// # Compressed data
//
// Compressed clusters lie one behind the other and share clusters of the file, whose refcounts count them (compress.go). Whoever comes to share one counts itself
// first, in memory, and writes then; the order on disk is that of all allocations. What is written shares sectors with what is in front of it, which stays the same.
//
// # Bitmaps
//
// Persistent bitmaps are bitmaps of the node while the image is used (bitmap.go). The disk says that they are in use before the first change, and gets
// them as they are, beside the old ones, when nothing is written any more (bitmap_store.go).
//
// # Corruption
//
// Offsets that cannot be right, and writes that would go over metadata (overlap.go), are said to be corruption (corrupt.go): the image is marked
// and takes no request any more, as in QEMU.
//
// The package starts no goroutines.
package qcow2
