// Package offline works on qcow2 images that nobody serves: it creates and describes them, checks and repairs them, and changes
// their snapshots, bitmaps, size and backing file. It is one goroutine's, reads and writes a File synchronously, and keeps
// little in memory; the driver for disks in use is backends/qcow2.
//
//	open, header          image.go
//	create                create.go and create_*.go
//	reads ahead           ahead.go, where the file is far away; each piece is read by a goroutine (Ahead.read), which Ahead.Wait waits for
//	check and repair      check.go says in which order; counts.go has the references that were found
//
// # Garbage
//
// Images come from strangers. Every number in one is checked before it is used; a table is read only where the file has bytes;
// no loop runs for longer than the file is large, however often its tables name each other; and what a check keeps in memory
// is a byte a cluster of the file and less, and some refcount blocks (blocksBytesMax).
//
// # Order of writes
//
// What is written is in place before something that is on disk refers to it, and what nobody refers to any more is given back
// last, with a Sync in between. A power cut leaks clusters at worst.
package offline
