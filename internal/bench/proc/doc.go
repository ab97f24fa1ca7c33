// Package proc accounts for what other processes cost: processor time, memory, system
// calls. A server is a tree of processes here, since some fork for each connection.
package proc
