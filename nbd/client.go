package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Limits of what a client takes from a server it does not know.
const (
	clientReplyMax   = 4 + 2*stringMax // the longest reply there is: SERVER with name and description
	clientRepliesMax = 10000           // replies to one option
	clientBytesMax   = 16 << 20        // their data together
)

// ErrServer marks what a server must not do.
var ErrServer = errors.New("server violated the protocol")

// Client is the client's side of a handshake: enough to list what a server has, and to bring a connection
// into the transmission phase. It is not safe for concurrent use, and the caller sets deadlines on the
// connection.
type Client struct {
	conn  net.Conn
	flags HandshakeFlags
}

// OptionError is a server's refusal of an option.
type OptionError struct {
	Option  Option
	Reply   Reply
	Message string // as the server sent it, valid UTF-8, may be empty
}

func (e *OptionError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("server refused %v: %v", e.Option, e.Reply)
	}
	return fmt.Sprintf("server refused %v: %v: %s", e.Option, e.Reply, e.Message)
}

// NewClient reads the greeting and answers it.
func NewClient(conn net.Conn) (*Client, error) {
	c := &Client{conn: conn}
	var head [18]byte
	if _, err := io.ReadFull(conn, head[:16]); err != nil {
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	init, style := binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint64(head[8:])
	switch {
	case init != MagicInit:
		return nil, fmt.Errorf("%w: greeting %#x: not an NBD server", ErrServer, init)
	case style == MagicOldstyle:
		return nil, fmt.Errorf("%w: it speaks the oldstyle protocol, which has no options", ErrServer)
	case style != MagicOption:
		return nil, fmt.Errorf("%w: greeting has the second magic %#x", ErrServer, style)
	}
	if _, err := io.ReadFull(conn, head[16:]); err != nil {
		return nil, fmt.Errorf("read greeting: %w", err)
	}
	c.flags = HandshakeFlags(binary.BigEndian.Uint16(head[16:]))
	if c.flags&HandshakeFixedNewstyle == 0 {
		return nil, fmt.Errorf("%w: it does not speak fixed newstyle (flags %v)", ErrServer, c.flags)
	}
	answer := ClientFixedNewstyle
	if c.flags&HandshakeNoZeroes != 0 {
		answer |= ClientNoZeroes
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, uint32(answer))); err != nil {
		return nil, fmt.Errorf("send client flags: %w", err)
	}
	return c, nil
}

// Conn returns the connection, which is a TLS connection after StartTLS. Once Go or ExportName has
// succeeded it carries the transmission phase.
func (c *Client) Conn() net.Conn { return c.conn }

// StartTLS puts TLS on the connection.
func (c *Client) StartTLS(ctx context.Context, config *tls.Config) error {
	if err := c.Ask(OptStartTLS, nil, nil); err != nil {
		return err
	}
	t := tls.Client(c.conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.conn = t
	return nil
}

// StructuredReplies turns structured replies on.
func (c *Client) StructuredReplies() error { return c.Ask(OptStructuredReply, nil, nil) }

// ExtendedHeaders turns extended headers on.
func (c *Client) ExtendedHeaders() error { return c.Ask(OptExtendedHeaders, nil, nil) }

// Abort says goodbye. The connection remains to be closed.
func (c *Client) Abort() error { return c.Ask(OptAbort, nil, nil) }

// Ask sends an option and calls each for every reply before the last. A refusal is an *OptionError.
func (c *Client) Ask(o Option, data []byte, each func(Reply, []byte) error) error {
	if err := c.send(o, data); err != nil {
		return err
	}
	total := 0
	for range clientRepliesMax {
		t, data, err := c.receive(o)
		if err != nil {
			return err
		}
		total += len(data)
		switch {
		case t == RepAck && len(data) == 0:
			return nil
		case t == RepAck:
			return fmt.Errorf("%w: ACK of %v with %d bytes of data", ErrServer, o, len(data))
		case t.Failed():
			return &OptionError{Option: o, Reply: t, Message: messageOf(data)}
		case each == nil:
			return fmt.Errorf("%w: %v in reply to %v", ErrServer, t, o)
		case total > clientBytesMax:
			return fmt.Errorf("%w: more than %d bytes in reply to %v", ErrServer, clientBytesMax, o)
		}
		if err := each(t, data); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: more than %d replies to %v", ErrServer, clientRepliesMax, o)
}

func (c *Client) send(o Option, data []byte) error {
	b := wireBytes(protocol.NegotiationOptionHeader{
		OptionMagic: MagicOption,
		ID:          uint32(o),
		Length:      uint32(len(data)),
	})
	if _, err := c.conn.Write(append(b, data...)); err != nil {
		return fmt.Errorf("send %v: %w", o, err)
	}
	return nil
}

// receive reads one reply to o.
func (c *Client) receive(o Option) (Reply, []byte, error) {
	var head [20]byte
	if _, err := io.ReadFull(c.conn, head[:]); err != nil {
		return 0, nil, fmt.Errorf("read reply to %v: %w", o, err)
	}
	var p protocol.NegotiationReplyHeader
	if _, err := binary.Decode(head[:], binary.BigEndian, &p); err != nil {
		return 0, nil, err
	}
	switch {
	case p.ReplyMagic != MagicOptionReply:
		return 0, nil, fmt.Errorf("%w: reply magic %#x", ErrServer, p.ReplyMagic)
	case Option(p.ID) != o:
		return 0, nil, fmt.Errorf("%w: reply to %v after %v", ErrServer, Option(p.ID), o)
	case p.Length > clientReplyMax:
		return 0, nil, fmt.Errorf("%w: %v of %d bytes in reply to %v, limit %d", ErrServer, Reply(p.Type), p.Length, o, clientReplyMax)
	}
	data := make([]byte, p.Length)
	if _, err := io.ReadFull(c.conn, data); err != nil {
		return 0, nil, fmt.Errorf("read reply to %v: %w", o, err)
	}
	return Reply(p.Type), data, nil
}

// messageOf is a server's error text; one that is no text is quoted.
func messageOf(data []byte) string {
	if err := checkString(string(data)); err != nil {
		return fmt.Sprintf("(text %s: %v)", shown(string(data)), err)
	}
	return string(data)
}
