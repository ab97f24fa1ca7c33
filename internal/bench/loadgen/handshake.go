package loadgen

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const optionReplyMax = 64 << 10 // no sane server sends more than a few hundred bytes

// exportInfo is what the server says of the export.
type exportInfo struct {
	sizeBytes  int64
	flags      uint16
	structured bool
}

// handshake negotiates the export on fd up to the transmission phase: fixed newstyle,
// optionally structured replies, NBD_OPT_GO. NBD proto.md, "Fixed newstyle negotiation".
type handshake struct {
	fd       int
	deadline time.Time
	info     exportInfo
}

func negotiate(fd int, export string, structured bool) (exportInfo, error) {
	h := handshake{fd: fd, deadline: time.Now().Add(silenceMax)}
	if err := h.greet(); err != nil {
		return exportInfo{}, fmt.Errorf("greeting: %w", err)
	}
	if structured {
		if err := h.option(optStructuredReply, nil); err != nil {
			return exportInfo{}, fmt.Errorf("negotiating structured replies: %w", err)
		}
		h.info.structured = true
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	data = append(data, export...)
	data = binary.BigEndian.AppendUint16(data, 0) // no information requests
	if err := h.option(optGo, data); err != nil {
		return exportInfo{}, fmt.Errorf("negotiating export %q: %w", export, err)
	}
	return h.info, nil
}

// greet answers the server's greeting with the flags both know.
func (h *handshake) greet() error {
	var b [18]byte
	if err := h.read(b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if binary.BigEndian.Uint64(b[0:]) != nbdMagic || binary.BigEndian.Uint64(b[8:]) != optMagic || flags&flagFixedNewstyle == 0 {
		return fmt.Errorf("not a fixed newstyle NBD server: % x", b)
	}
	return h.write(binary.BigEndian.AppendUint32(nil, uint32(flags&(flagFixedNewstyle|flagNoZeroes))))
}

// option sends one option and reads its replies up to the one that ends it.
func (h *handshake) option(id uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, optMagic)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if err := h.write(append(b, data...)); err != nil {
		return err
	}
	for {
		typ, reply, err := h.optionReply(id)
		switch {
		case err != nil:
			return err
		case typ == repAck:
			return nil
		case typ&repErrorFlag != 0:
			return fmt.Errorf("server refused option %d: error %d %q", id, typ&^repErrorFlag, reply)
		case typ == repInfo:
			h.learn(reply)
		}
	}
}

func (h *handshake) optionReply(id uint32) (typ uint32, data []byte, err error) {
	var b [20]byte
	if err := h.read(b[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(b[16:])
	if binary.BigEndian.Uint64(b[0:]) != replyMagic || binary.BigEndian.Uint32(b[8:]) != id || length > optionReplyMax {
		return 0, nil, fmt.Errorf("malformed option reply: % x", b)
	}
	data = make([]byte, length)
	return binary.BigEndian.Uint32(b[12:]), data, h.read(data)
}

// learn takes size and flags from an NBD_INFO_EXPORT; other information is skipped.
func (h *handshake) learn(data []byte) {
	if len(data) == 12 && binary.BigEndian.Uint16(data) == infoExport {
		h.info.sizeBytes = int64(binary.BigEndian.Uint64(data[2:]))
		h.info.flags = binary.BigEndian.Uint16(data[10:])
	}
}

func (h *handshake) read(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(h.fd, b)
		switch {
		case (err == unix.EAGAIN || err == unix.EINTR) && time.Now().Before(h.deadline):
			continue
		case err != nil:
			return fmt.Errorf("receiving: %w", err)
		case n == 0:
			return errClosed
		}
		b = b[n:]
	}
	return nil
}

func (h *handshake) write(b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(h.fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("sending: %w", err)
		}
		b = b[max(n, 0):]
	}
	return nil
}
