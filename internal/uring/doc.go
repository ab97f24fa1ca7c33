// Package uring is io_uring on bare system calls: the two queues, entering the kernel, and the operations
// the program uses. It knows nothing of tasks, buffers or blocks.
//
// A Ring belongs to one OS thread: the one that called Enable, locked with runtime.LockOSThread. Only Stats
// may be called from elsewhere. One turn of its owner's loop:
//
//	Next, fill in, Next, fill in ...   entries in the submission queue, unseen by the kernel
//	Submit | SubmitAndWait             one system call at most
//	Reap                               completions, copied out
//
// INVARIANT: no address of the Go heap or of a Go stack enters an SQE. The kernel uses an address after the system
// call has returned, when Go may have moved or freed what was there. Data, iovecs, timespecs
// and msghdrs lie in mapped memory; check builds look at each address (Params.Owns).
//
// INVARIANT: ring indices are free-running uint32, read and written by sync/atomic where the kernel does the
// same, and compared only by difference. They wrap after 2^32 entries: some hours of work.
//
// What may go wrong between Go and the kernel, and where it is dealt with:
//
//   - The runtime preempts a thread with a signal. A wait then ends with EINTR, which is a wait that ended (SubmitAndWait);
//     a submission is repeated (Submit).
//   - With deferred task work nothing completes unless the thread asks for it: every entry into the kernel
//     carries IORING_ENTER_GETEVENTS, and TaskRunPending tells whether one is due.
//   - A full completion queue loses nothing: the kernel keeps the rest and raises a flag (Reap, Ready).
//   - A blocking raw system call keeps the P of the thread, an ordinary one hands it over and takes it
//     back at a price: RawWait chooses.
//
// The package starts no goroutine and needs Linux 5.11 (IORING_FEAT_EXT_ARG). What newer kernels
// add is used when present, see ladder.
package uring
