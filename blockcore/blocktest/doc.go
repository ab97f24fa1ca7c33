// Package blocktest is for tests of drivers and of the block layer.
//
// TestDriver is the conformance suite that every driver passes, on both engines: it holds a driver against a flat
// array of bytes. Fake is a disk in memory that does as it is told: it holds requests until they are
// released, fails or delays them by rule, and writes down what it is asked, in order, for golden transcripts.
//
// RunScripts plays scenarios on a graph of Layers, drivers that say when they are quiesced and resumed: commands, and what is
// said, compared with a golden transcript.
//
// The package starts no goroutines of its own besides the AioContexts of the suite and
// of scripts, and one for each drain of a script, which ends with it.
package blocktest
