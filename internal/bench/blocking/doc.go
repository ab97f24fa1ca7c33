// Package blocking has sockets that a thread blocks in, with the least that Go allows: no poller, and nobody told that the thread waits. It is for
// measuring what cannot be done for less. The thread is the caller's own (runtime.LockOSThread).
//
// It starts no goroutines and has no locks.
package blocking
