// Package format knows how a qcow2 image is laid out, and does no I/O: it reads and writes structures in memory, and refuses what
// contradicts itself. The specification is QEMU's docs/interop/qcow2.txt; limits and messages are those of QEMU 7.2.
//
//	header           header.go, its fields checked in validate.go, what follows it in extension.go, feature bits in feature.go
//	guest -> host    geometry.go (which entry of which table), l1.go, l2.go, compressed.go
//	reference counts refcount.go
//	snapshots        snapshot.go
//	bitmaps          bitmap.go
//
// Tables are kept as they are on disk, big endian, and entries are decoded where they are used.
//
// Nothing here panics on bad input, provided that slices have the lengths which the functions state. Memory stays in proportion to what is passed in.
package format
