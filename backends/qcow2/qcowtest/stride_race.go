//go:build race

package qcowtest

// Stride is how many rows a test goes on after each that it takes, where rows differ in their images or command lines only. To the race detector such rows
// are the same, and most of their time goes into programs of QEMU, which it does not see.
const Stride = 6
