// Package least is an NBD server that serves memory with two system calls for all requests that are there at once: one that waits for them, and one
// that answers them. No server can take less processor time for a request of a client that waits for each. Nobody should keep data with it.
//
// It starts no goroutines and has no locks.
package least
