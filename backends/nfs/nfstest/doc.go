// Package nfstest is an NFSv3 server in memory that does what it is told, for tests of clients: it keeps files, tells
// what of them a crash would leave, and misbehaves by rule.
//
// # What it is
//
// Four services on TCP, each on a port of its own: the port mapper (RFC 1833, version 2), MOUNT version 3, NFS
// version 3 (RFC 1813) and, if it is wanted, the lock manager (NLM version 4, the same), over ONC RPC version 2 with record marking (RFC 5531). XDR and all numbers are written here anew
// and on purpose: a mistake in the client's encoding is not shared. There are no links, no special files and no
// cache of duplicate requests, so a repeated REMOVE finds nothing and a repeated guarded CREATE finds its own file.
//
// # Durability
//
// A file has its contents, which READ sees, and what of them is on stable storage. A WRITE with UNSTABLE changes the
// first only; COMMIT, or a WRITE with DATA_SYNC or FILE_SYNC, takes just the bytes it names over to the second.
// Whatever changes names, attributes or the length by SETATTR is stable at once. Crash throws away what is not stable,
// all of it or a part that a seed chooses, and changes the write verifier.
//
// # Faults
//
// A Rule says which calls it meets and carries a Fault, which says what happens to these calls: statuses, short counts,
// delays, replies twice, out of order or damaged, connections that break, the server that crashes in the middle. What is
// not about single calls is a method of Server: Refuse, Silence, DropConnections, Crash, ChangeVerifier.
//
// # Goroutines
//
// acceptLoop, one for each port that listens, ends when the port is closed. Each connection has three that end with it:
// readLoop reads calls, executeLoop executes them one after the other, writeLoop sends replies. Replies that are delayed
// wait in timers, those that the test holds in a holdLoop each. Close, which Start registers as the cleanup of the test,
// ends all.
//
// # Ganesha
//
// StartGanesha starts nfs-ganesha, a server of others, by scripts/ganesha, for what only a real server shows. Its
// answerLoop ends with the script.
package nfstest
