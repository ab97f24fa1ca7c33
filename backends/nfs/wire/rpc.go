package wire

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// MarkBytes is the length of a record mark. RFC 5531 11.
const MarkBytes = 4

// lastFragment is the bit of a record mark that ends the record.
const lastFragment = 1 << 31

// Mark reads a record mark: how long the fragment behind it is, and whether it is the record's last.
func Mark(b []byte) (bytes int, last bool) {
	v := binary.BigEndian.Uint32(b)
	return int(v &^ lastFragment), v&lastFragment != 0
}

// Messages. RFC 5531 9.
const (
	messageCall  = 0
	messageReply = 1
	rpcVersion   = 2

	replyAccepted = 0
	replyDenied   = 1

	authNone = 0
	authSys  = 1
)

// groupsMax is how many groups AUTH_SYS has room for. RFC 5531, appendix A.
const groupsMax = 16

// AuthSys returns a credential in the name of a user. RFC 5531, appendix A.
func AuthSys(machine string, uid, gid uint32, groups []uint32) []byte {
	groups = groups[:min(len(groups), groupsMax)]
	body := appendUint32(nil, 0)
	body = appendOpaque(body, machine[:min(len(machine), 255)])
	body = appendUint32(body, uid)
	body = appendUint32(body, gid)
	body = appendUint32(body, uint32(len(groups)))
	for _, g := range groups {
		body = appendUint32(body, g)
	}
	return appendOpaque(appendUint32(nil, authSys), body)
}

// AppendCall appends the beginning of a record with a call, whose arguments follow. FinishCall ends it.
func AppendCall(b []byte, xid uint32, p Program, proc uint32, cred []byte) []byte {
	b = appendUint32(b, 0) // the mark
	b = appendUint32(b, xid)
	b = appendUint32(b, messageCall)
	b = appendUint32(b, rpcVersion)
	b = appendUint32(b, p.Number)
	b = appendUint32(b, p.Version)
	b = appendUint32(b, proc)
	if cred == nil {
		b = appendUint64(b, authNone)
	} else {
		b = append(b, cred...)
	}
	return appendUint64(b, authNone)
}

// FinishCall writes the mark of a record of one fragment: call, and behind it so many bytes that are sent from elsewhere.
func FinishCall(call []byte, behindBytes int) {
	binary.BigEndian.PutUint32(call, uint32(len(call)-MarkBytes+behindBytes)|lastFragment)
}

// SetXID gives a call that is written down another transaction id.
func SetXID(call []byte, xid uint32) { binary.BigEndian.PutUint32(call[MarkBytes:], xid) }

// HeadBytesLeast is how much of a reply there is in any case: all of it that says to which call it belongs.
const HeadBytesLeast = 12

// Head is what a reply says before its results.
type Head struct {
	XID   uint32
	Bytes int   // how long the head is
	Err   error // why the server has not executed the call, an *RefusedError
}

// RefusedError says that a server has not executed a call.
type RefusedError struct {
	What  string
	Errno syscall.Errno
}

func (e *RefusedError) Error() string { return "RPC: " + e.What }

// Unwrap returns the errno.
func (e *RefusedError) Unwrap() error { return e.Errno }

// ParseHead reads the beginning of a reply. When it needs more than b it returns how many bytes in all, at least, and no head; it never asks for
// bytes behind the head.
func ParseHead(b []byte) (h Head, needBytes int, err error) {
	if len(b) < HeadBytesLeast {
		return h, HeadBytesLeast, nil
	}
	h.XID = binary.BigEndian.Uint32(b)
	if binary.BigEndian.Uint32(b[4:]) != messageReply {
		return h, 0, fmt.Errorf("not a reply: %w", ErrMalformed)
	}
	switch binary.BigEndian.Uint32(b[8:]) {
	case replyAccepted:
		return parseAccepted(h, b)
	case replyDenied:
		return parseDenied(h, b)
	}
	return h, 0, fmt.Errorf("neither accepted nor denied: %w", ErrMalformed)
}

// parseAccepted goes on behind MSG_ACCEPTED: verf, accept_stat. The versions of PROG_MISMATCH count as results, which nobody reads.
func parseAccepted(h Head, b []byte) (Head, int, error) {
	const verf = HeadBytesLeast
	if len(b) < verf+8 {
		return h, verf + 8, nil
	}
	n := binary.BigEndian.Uint32(b[verf+4:])
	if n > AuthBytesMax {
		return h, 0, fmt.Errorf("verifier of %d bytes: %w", n, ErrMalformed)
	}
	end := verf + 8 + int(n) + Padding(int(n))
	if len(b) < end+4 {
		return h, end + 4, nil
	}
	h.Bytes = end + 4
	if stat := binary.BigEndian.Uint32(b[end:]); stat != 0 {
		h.Err = acceptError(stat)
	}
	return h, 0, nil
}

// acceptError is accept_stat. RFC 5531 9.
func acceptError(stat uint32) error {
	switch stat {
	case 1:
		return &RefusedError{"the server has no such program (PROG_UNAVAIL)", syscall.EPROTONOSUPPORT}
	case 2:
		return &RefusedError{"the server has not this version of the program (PROG_MISMATCH)", syscall.EPROTONOSUPPORT}
	case 3:
		return &RefusedError{"the server has no such procedure (PROC_UNAVAIL)", syscall.EPROTONOSUPPORT}
	case 4:
		return &RefusedError{"the server could not read the arguments (GARBAGE_ARGS)", syscall.EPROTO}
	case 5:
		return &RefusedError{"the server has an error of its own (SYSTEM_ERR)", syscall.EREMOTEIO}
	}
	return &RefusedError{fmt.Sprintf("accept_stat %d", stat), syscall.EPROTO}
}

// parseDenied goes on behind MSG_DENIED: reject_stat, and for AUTH_ERROR why.
func parseDenied(h Head, b []byte) (Head, int, error) {
	const at = HeadBytesLeast
	if len(b) < at+8 {
		return h, at + 8, nil
	}
	h.Bytes = at + 8
	switch stat := binary.BigEndian.Uint32(b[at:]); stat {
	case 0:
		h.Err = &RefusedError{"the server speaks another version of RPC", syscall.EPROTONOSUPPORT}
	case 1:
		h.Err = &RefusedError{fmt.Sprintf("the server does not take the credential (auth_stat %d)", binary.BigEndian.Uint32(b[at+4:])), syscall.EACCES}
	default:
		return h, 0, fmt.Errorf("reject_stat %d: %w", stat, ErrMalformed)
	}
	return h, 0, nil
}
