// Package wire is what NFS version 3 looks like on a TCP connection: ONC RPC with record marking (RFC 5531), XDR (RFC 4506), the
// procedures of NFS and MOUNT version 3 (RFC 1813) and of the port mapper (RFC 1833) that a client of one file needs.
//
// It appends calls to byte slices and reads replies out of them; it neither does I/O nor keeps anything. A reply is bounded before it is read:
// what is longer than it can be, is cut short or contradicts itself is an error and never a panic.
//
//	record = fragment... ; fragment = last(1 bit) length(31 bits) bytes
//	call   = xid CALL rpcvers prog vers proc cred verf arguments
//	reply  = xid REPLY MSG_ACCEPTED verf accept_stat results, or xid REPLY MSG_DENIED why
package wire
