// Package nfsleast speaks NFS with as little as can be, to know what a server of NFS leaves to those in front of it. Nobody should keep data with it: it
// holds nothing back, repeats nothing, and gives up at the first error.
//
//   - Load calls READ, WRITE and COMMIT directly, with no NBD in between: the most requests a second that any NBD server could answer from the same server of NFS.
//   - Relay is an NBD server of four system calls and two sleeps for all requests that are there at once: the least processor time that any NBD server
//     could take for a request of a client that waits for it. It is not fast at depths above one, as client and server of NFS take turns.
//
// Goroutines: Load.Run starts worker.run for each connection, on threads of their own, and waits for them.
package nfsleast
