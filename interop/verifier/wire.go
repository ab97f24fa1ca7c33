package verifier

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// Numbers of the protocol. NBD proto.md.
const (
	optionMagic  = 0x49484156454f5054
	requestMagic = 0x25609513
	replyMagic   = 0x67446698
	optionGo     = 7
	replyAck     = 1

	cmdRead   = 0
	cmdWrite  = 1
	cmdDisc   = 2
	cmdFlush  = 3
	cmdTrim   = 4
	cmdZeroes = 6

	flagFUA    = 1
	flagNoHole = 2

	codeShutdown = 108
)

// negotiate takes a connection to the transmission phase of an export.
func negotiate(conn net.Conn, export string) error {
	var greeting [18]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(binary.BigEndian.Uint16(greeting[16:])&3))
	b = binary.BigEndian.AppendUint64(b, optionMagic)
	b = binary.BigEndian.AppendUint32(b, optionGo)
	b = binary.BigEndian.AppendUint32(b, uint32(6+len(export)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(export)))
	b = append(append(b, export...), 0, 0)
	if _, err := conn.Write(b); err != nil {
		return fmt.Errorf("option: %w", err)
	}
	for {
		var head [20]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return fmt.Errorf("option reply: %w", err)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[16:]))); err != nil {
			return fmt.Errorf("option reply: %w", err)
		}
		switch kind := binary.BigEndian.Uint32(head[12:]); {
		case kind == replyAck:
			return nil
		case kind>>31 == 1:
			return fmt.Errorf("export %q was refused with %#x", export, kind)
		}
	}
}

// appendRequest appends the header of a request.
func appendRequest(b []byte, flags, command uint16, cookie, offset uint64, length uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, requestMagic)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, cookie)
	b = binary.BigEndian.AppendUint64(b, offset)
	return binary.BigEndian.AppendUint32(b, length)
}
