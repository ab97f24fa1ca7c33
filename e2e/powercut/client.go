package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The few numbers of NBD proto.md that this client needs.
const (
	magicNBD      = 0x4e42444d41474943
	magicOption   = 0x49484156454f5054
	magicRequest  = 0x25609513
	magicReply    = 0x67446698
	clientFlags   = 1 | 2 // FIXED_NEWSTYLE, NO_ZEROES
	optExportName = 1
	cmdWrite      = 1
	cmdFlush      = 3
)

// client speaks the transmission phase over one connection.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  *bufio.Writer
}

// dial connects to the default export behind a unix socket.
func dial(socket string) (*client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReader(conn), out: bufio.NewWriterSize(conn, 256<<10)}
	greeting := make([]byte, 18)
	if _, err := io.ReadFull(c.in, greeting); err != nil {
		return nil, fmt.Errorf("the greeting: %w", err)
	}
	if binary.BigEndian.Uint64(greeting) != magicNBD {
		return nil, errors.New("the greeting is not NBD's")
	}
	hello := binary.BigEndian.AppendUint32(nil, clientFlags)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint32(hello, optExportName)
	hello = binary.BigEndian.AppendUint32(hello, 0)
	if _, err := conn.Write(hello); err != nil {
		return nil, err
	}
	export := make([]byte, 10)
	if _, err := io.ReadFull(c.in, export); err != nil {
		return nil, fmt.Errorf("the export: %w", err)
	}
	if size := binary.BigEndian.Uint64(export); size < imagePages*pageBytes {
		return nil, fmt.Errorf("the export has %d bytes", size)
	}
	return c, nil
}

// request queues one request.
func (c *client) request(command uint16, cookie, offset uint64, payload []byte) error {
	head := binary.BigEndian.AppendUint32(nil, magicRequest)
	head = binary.BigEndian.AppendUint16(head, 0)
	head = binary.BigEndian.AppendUint16(head, command)
	head = binary.BigEndian.AppendUint64(head, cookie)
	head = binary.BigEndian.AppendUint64(head, offset)
	length := len(payload)
	head = binary.BigEndian.AppendUint32(head, uint32(length))
	if _, err := c.out.Write(head); err != nil {
		return err
	}
	_, err := c.out.Write(payload)
	return err
}

// reply waits for a reply and returns the cookie of its request.
func (c *client) reply() (cookie uint64, err error) {
	var head [16]byte
	if _, err := io.ReadFull(c.in, head[:]); err != nil {
		return 0, fmt.Errorf("a reply: %w", err)
	}
	if magic := binary.BigEndian.Uint32(head[:]); magic != magicReply {
		return 0, fmt.Errorf("a reply begins with %#x", magic)
	}
	if errno := binary.BigEndian.Uint32(head[4:]); errno != 0 {
		return 0, fmt.Errorf("the server's error %d", errno)
	}
	return binary.BigEndian.Uint64(head[8:]), nil
}
