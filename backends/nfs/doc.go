// Package nfs is the Driver for files on an NFS server. It speaks NFS version 3 over TCP itself: no kernel mount, no root.
//
// # A request
//
//	ReadAt, WriteAt -> pieces of rtmax, wtmax -> callTable -> conn: one sendmsg a turn -> server
//	                                                            |
//	ReadAt, WriteAt <- group: the last one wakes the Task <- parser: data straight into its place
//
// A call keeps its place in the table until its reply has been read, over as many connections as that takes. When a socket is lost its calls are
// sent again over the next one with the same transaction id; READ, WRITE, COMMIT and SETATTR of a size may be executed twice. Replies for
// ids that nobody has are passed over, and a reply that cannot be ends its socket.
//
// # Durability
//
// A WRITE is UNSTABLE: the server may have it in memory only, and lose it when it is restarted. So a copy is held (held.go) until a COMMIT
// has confirmed it. Server and client tell runs of the server apart by its verifier: when the one in a COMMIT's reply is not that of a WRITE, what that one wrote
// is written again, and then committed, before the FLUSH is answered (settle.go). Reads look into what is held, so a client reads what it wrote even
// from a server that has lost it. A write with FUA is FILE_SYNC.
//
// An error of a COMMIT, or of a WRITE that is repeated, goes to the FLUSH. Everything is still held then, and is written again before a later FLUSH
// succeeds: the error stays as long as its cause, and no FLUSH after it says more than is true. Unlike with a file of the
// kernel's nothing is lost by it. What is held is bounded: when there is no room, writes wait for a COMMIT, and fail with its error.
//
// A COMMIT whose answer nobody has heard counts as one that failed: that may have been the answer, and a server gives it once. Nor does a page that is written over
// lose what it owes: where a restart has taken what was there before, a FLUSH waits until what has come in its place is on stable storage.
//
// Writes to one place are never under way at once. Otherwise the server might end up with one of them and the held copy with another.
//
// # Outages
//
// Calls wait for the server, for ever or, with a timeout, that long; then they fail with ETIMEDOUT. What they wrote in part may still come to the file. Only
// attempts to connect, which look up names and ask the port mapper, leave the loop. While calls are in flight a timer looks at them: a server that has been
// silent for long is told of (Health), and its connection made anew. A request that nobody wants any more ends at once; a WRITE of it that the
// server may have got is looked after until it is answered (cancel.go).
//
// # Locks
//
// QEMU's image locks are taken at the server's lock manager (locks.go, lockcall.go), by calls that block, off the loop: when a file is opened, and again
// before a connection that was made anew is used, since that is how a restart of the server is noticed, which forgets them. Until they are confirmed requests
// wait, as in any outage. A file that is reopened for reading has a reader's locks (lockaccess.go). When somebody
// else has the file after a restart, nothing is written any more (lockloss.go). Processes of this host that are gone are known by their notes (locknote.go).
//
// # Goroutines
//
//   - attempt.dialLoop: one for each attempt to connect. It ends when there is a socket, or an error; Close and a move to another loop cancel it,
//     and Close waits for it.
//   - fileLocks.watchLoop: one for each file with locks. Close ends it, and waits for it.
package nfs
