package nfsleast

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"nbd-dataplane/backends/nfs/wire"
)

const (
	// startBytes of a record say to which call it belongs and whether that has worked: mark, head without a verifier, status.
	startBytes = wire.MarkBytes + 24 + 4
	// replyBytesMax bounds a record without its data.
	replyBytesMax = 1024
)

// reply is what the beginning of a record says.
type reply struct {
	xid   uint32
	bytes int // of the record with its mark
}

// parseStart reads the first startBytes of a record.
func parseStart(b []byte, dataBytesMax int) (reply, error) {
	n, last := wire.Mark(b)
	h, need, err := wire.ParseHead(b[wire.MarkBytes:startBytes])
	switch {
	case err != nil:
		return reply{}, err
	case need > 0, !last, n < startBytes-wire.MarkBytes, n > dataBytesMax+replyBytesMax:
		return reply{}, fmt.Errorf("record of %d bytes: %w", n, wire.ErrMalformed)
	case h.Err != nil:
		return reply{}, h.Err
	}
	if status := binary.BigEndian.Uint32(b[startBytes-4:]); status != 0 {
		return reply{}, &wire.StatusError{Status: wire.Status(status)}
	}
	return reply{h.XID, wire.MarkBytes + n}, nil
}

// vector is one message of many pieces.
type vector struct {
	// Owned by the worker's thread.
	iovecs []unix.Iovec
	bytes  int
	msg    unix.Msghdr
}

func (v *vector) reset() { v.iovecs, v.bytes = v.iovecs[:0], 0 }

func (v *vector) add(p []byte) {
	if len(p) > 0 {
		v.iovecs = append(v.iovecs, unix.Iovec{Base: &p[0], Len: uint64(len(p))})
		v.bytes += len(p)
	}
}
