package loadgen

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const iovMax = 1024 // UIO_MAXIOV of Linux: vectors a sendmsg takes

// sendQueue gathers the requests of a turn as one vector: runs of headers, and between
// them the payloads of writes, which are never copied. It is never grown: a queue
// without room holds new requests back until the socket has taken the old ones.
type sendQueue struct {
	// Owned by the worker's thread.
	headers []byte       // headers of everything queued, back to back
	iov     []unix.Iovec // iov[first:] is still to be sent
	first   int
	run     bool // the last vector is a run of headers, which the next header continues
	msg     unix.Msghdr
}

func newSendQueue(depth int) *sendQueue {
	return &sendQueue{
		headers: make([]byte, 0, 2*depth*requestBytes),
		iov:     make([]unix.Iovec, 0, 4*depth),
	}
}

// empty reports whether everything was sent.
func (q *sendQueue) empty() bool { return q.first == len(q.iov) }

// full reports whether one more request might not fit.
func (q *sendQueue) full() bool {
	return len(q.headers)+requestBytes > cap(q.headers) || len(q.iov)+2 > cap(q.iov)
}

// push appends a request. NBD proto.md, "Request message".
func (q *sendQueue) push(flags, typ uint16, cookie uint64, offset int64, length int, payload []byte) {
	at := len(q.headers)
	h := q.headers[at : at+requestBytes]
	q.headers = q.headers[:at+requestBytes]
	binary.BigEndian.PutUint32(h[0:], requestMagic)
	binary.BigEndian.PutUint16(h[4:], flags)
	binary.BigEndian.PutUint16(h[6:], typ)
	binary.BigEndian.PutUint64(h[8:], cookie)
	binary.BigEndian.PutUint64(h[16:], uint64(offset))
	binary.BigEndian.PutUint32(h[24:], uint32(length))
	if q.run && !q.empty() {
		q.iov[len(q.iov)-1].Len += requestBytes
	} else {
		q.iov = append(q.iov, unix.Iovec{Base: &h[0], Len: requestBytes})
	}
	q.run = len(payload) == 0
	if !q.run {
		q.iov = append(q.iov, unix.Iovec{Base: &payload[0], Len: uint64(len(payload))})
	}
}

// flush sends as much as the socket takes.
func (q *sendQueue) flush(fd int) error {
	for !q.empty() {
		q.msg.Iov = &q.iov[q.first]
		q.msg.Iovlen = uint64(min(len(q.iov)-q.first, iovMax))
		n, errno := sendmsg(fd, &q.msg)
		switch errno {
		case 0:
			q.sent(uint64(n))
		case unix.EINTR:
		case unix.EAGAIN:
			return nil
		default:
			return lost(errno)
		}
	}
	q.headers, q.iov, q.first = q.headers[:0], q.iov[:0], 0
	return nil
}

// sent moves the front of the queue over n bytes.
func (q *sendQueue) sent(n uint64) {
	for n > 0 {
		v := &q.iov[q.first]
		if n < v.Len {
			v.Base = (*byte)(unsafe.Add(unsafe.Pointer(v.Base), n))
			v.Len -= n
			return
		}
		n -= v.Len
		q.first++
	}
}
