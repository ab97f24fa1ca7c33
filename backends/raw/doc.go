// Package raw is the Driver for disks without a format: regular files and block devices.
//
// # Durability
//
// A write goes to the page cache (cache=writeback, unsafe), past it (none), or through it
// to stable storage (writethrough; directsync: both). Flush is fdatasync(2); a write with FUA
// carries RWF_DSYNC, which also brings the metadata needed to find the data again.
//
// When the kernel cannot write a dirty page back it drops the page's dirty mark and reports the error
// once to each open file description, at its next fsync (errseq_t, Linux 4.13). A second
// fsync succeeds although the data is gone. So the first failure of a flush, or of the sync half of a
// FUA write, is kept: every later flush and every FUA write fails with EIO until the file is opened
// again, because nobody can say which of the earlier writes are on disk (reference nbd FL-2).
// Plain writes and reads go on: they promise nothing about stable storage. All data goes through one
// file description, so no other descriptor can swallow the report; a reopen syncs the old one before any sync
// through the new one is acknowledged (see former).
//
// A FUA write that fails with something else than EIO, for instance ENOSPC, may have failed to
// allocate (harmless, nothing is lost) or to sync. It is repeated without RWF_DSYNC: if it fails again it was
// the former, otherwise the latter.
//
// When two syncs overlap, the kernel gives the error to the one that asks first. So none is acknowledged before all
// that ran beside it have returned (see syncs).
//
// # Sizes
//
// The size is rounded up to 512 bytes, as qemu-nbd does, and to the alignment that O_DIRECT needs
// where that is more. What lies behind the end of the file reads as zeroes; writing there makes the file
// longer. A file that became shorter than it was at open is damage, not zeroes: reads fail with EIO.
//
//	0         base                       end of file    base+Size
//	|---------|==============================|...........|
//	 not ours   the disk                       the tail: zeroes
//
// # Who does a request
//
// Short requests that hit the page cache are copies to and from a shared mapping of the file, where the file system
// is known to do that well (mapped.go, and docs/decisions/0006-mapped-page-cache.md). For all others:
//
// A read that is alone in its turn is tried inline with RWF_NOWAIT: a hit in the page cache costs one system
// call and no suspension. In company it joins the turn's one submission. Buffered
// writes are made inline as long as that is quick (see pace): io_uring would hand them to a kernel worker.
// So is a short look at the map of a local file.
// Everything that waits for a disk (O_DIRECT, FUA, flush, fallocate) goes through the engine, and what
// neither can do (long walks over the map, ioctl) to a worker goroutine.
//
// # Image locks
//
// See lock.go: the byte locks of QEMU, on a file description of their own.
//
// The package starts no goroutines.
package raw
