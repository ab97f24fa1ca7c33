// Package qcowtest makes qcow2 images with QEMU's own tools, from a seed, and keeps beside each what a client must read
// from it. It is what tests of the qcow2 packages compare with: an image of every option that qemu-img has, random work
// done by qemu-io, damage of known kinds, and what QEMU says of all of these.
//
// It reads and writes the format by a few offsets of its own and imports none of our code, so that a mistake in ours
// cannot agree with itself.
package qcowtest
