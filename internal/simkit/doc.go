// Package simkit is what the simulations of the tree have in common: that of the block layer (internal/sim) and that of the NFS driver (backends/nfs).
//
// A simulation is a world in which a seed decides what happens next. Loops are stepped (blockcore.Stepped), time is that of testing/synctest, and goroutines
// of the control plane park until they are chosen; so one goroutine at a time does something, and the same seed is the same run.
//
//   - Stage is what a world stands on: its loops, its clock, Threads that park, and a Journal of what has happened.
//   - Write, Find and Fill are the model of contents: what may be read in a cell after writes that overlap in time.
//   - Simulation runs seeds, makes the run of one that fails shorter, and prints it; Mutant is a mistake that a simulation must find.
//
// What a world consists of, and what goes wrong in it, is the business of the two.
//
// # Goroutines
//
//   - Stage.closeLoop: one that waits for a loop to close, which is stepped meanwhile.
package simkit
