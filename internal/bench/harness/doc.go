// Package harness runs the comparison: a matrix of workloads, each driven against each
// server in interleaved rounds.
//
// Every sample is taken from a server that was started for it. Servers that keep running
// would carry what one workload did to them (grown buffers and heaps, threads, the
// fortune of one start) into the next, and two of them could not hold the image lock of
// the same file. A new process a sample makes the spread of the rounds contain the
// spread from one start to the next, which a user sees as well. A short run that is not
// counted comes first, on the same connections.
//
// Rounds are interleaved (A B C, B C A, C A B): what changes slowly on the machine meets
// all servers alike, and nobody always follows the same neighbour.
package harness
