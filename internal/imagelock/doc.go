// Package imagelock says which bytes of an image QEMU and we lock, and how a conflict is worded. How a byte is locked is the business of the
// drivers: by the kernel for a file of this host (backends/raw), by the lock manager of a server for one over NFS (backends/nfs).
//
// The locks are shared ones on single bytes, which need not exist in the file: one for each permission used, and one for each that is denied to others:
//
//	byte 100+n  somebody uses permission n
//	byte 200+n  somebody does not share permission n
//
// Two users conflict when one uses what the other does not share. Each takes its own bytes first and then looks for the other's, so of two that come at
// once at least one notices. A kernel that has a file system of an NFS server mounted turns the locks of its programs into calls to the lock manager, so
// users of either kind see each other's.
package imagelock
