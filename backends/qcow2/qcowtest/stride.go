//go:build !race

package qcowtest

// Stride is how many rows a test goes on after each that it takes, where rows differ in their images or command lines only.
const Stride = 1
