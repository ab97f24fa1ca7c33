// Package blocktest is for tests of drivers and of the block layer.
//
// TestDriver is the conformance suite that every driver passes, on both engines: it holds a driver against a flat
// array of bytes. Fake is a disk in memory that does as it is told: it holds requests until they are
// released, fails or delays them by rule, and writes down what it is asked, in order, for golden transcripts.
//
// The package starts no goroutines of its own besides the AioContexts of the suite.
package blocktest
