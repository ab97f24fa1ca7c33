package nfsleast

import (
	"encoding/binary"
	"fmt"

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
