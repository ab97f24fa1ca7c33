// Package server starts and stops the NBD servers that the benchmark compares: ours, and
// the peers. One table (Known) says how each is started, so that all serve the same file
// in the way their users would ask for the same thing.
package server
