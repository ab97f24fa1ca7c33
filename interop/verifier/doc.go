// Package verifier has NBD clients that know what they have to read. They share no code with the server.
//
// A Client writes versions of blocks, remembers what was acknowledged, and compares. It keeps many requests in flight, lives through being thrown
// out, and counts what went wrong.
//
// A Ledger knows of every sector of a disk what may be there after its server was killed; Sessions are connections that work on one. The disk may
// be an image that keeps its metadata in memory until it is flushed. What a kill may do to it:
//
//	a request without an answer                          done, not done, or, sector by sector, in part
//	a write, zeroes or a trim that were answered         there or not, until a flush that was sent after the answer has been answered
//	one of these with FUA                                there
//	a write into a place that a flush has made lasting   there: the kernel has it, and no metadata is needed to find it
//
// The last line is by granule, the unit that the image maps: a cluster or subcluster. A granule has a lasting place once a write into it was answered and a
// flush after that; it loses the place when zeroing or a trim of a part of it begins, or when a snapshot is taken. What is overwritten in its place is
// gone whatever becomes of the metadata. Lasting here means that the kernel has it: a kill is no power cut. A volatile Ledger is for what is one: it goes by the
// first three lines alone.
package verifier
