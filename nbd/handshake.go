package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// handshakeOptions is how a listener receives its clients.
type handshakeOptions struct {
	tls          TLSMode
	credentials  *TLSCredentials // needed unless tls is TLSOff
	authorizer   Authorizer      // nil admits everybody
	deadline     time.Duration   // for all of the handshake; 0 means handshakeDeadlineDefault
	shuttingDown func() bool     // nil means never
}

// handshake speaks with a client until it has chosen an export, and returns the connection to go on with:
// conn itself, or the TLS connection on top of it.
//
// INVARIANT: never a byte more is read from conn than the option in hand has, so that what a client
// sends right behind its last option is still in the socket: requests for whoever serves the
// transmission, or a TLS hello. For the same reason bytes sent in clear behind STARTTLS end up in the TLS
// layer, which takes them for what they are, an attack or nonsense, and not in this one.
//
// On an error the connection has been closed; the error wraps one of the ErrXxx of this package. Without one the export expects the client, who is yet to be told
// that it has the export (negotiated.welcome).
func handshake(ctx context.Context, conn net.Conn, cat catalog, o handshakeOptions) (negotiated, net.Conn, *Peer, error) {
	h := newHandshake(conn, cat, o)
	deadline := o.deadline
	if deadline == 0 {
		deadline = handshakeDeadlineDefault
	}
	conn.SetDeadline(time.Now().Add(deadline))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err := h.run()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		h.n.disagree()
		err = h.explain(ctx, err)
		h.close(err)
		return negotiated{}, nil, h.n.peer, err
	}
	conn.SetDeadline(time.Time{})
	return h.n.result, h.conn, h.n.peer, nil
}

// handshaker drives a negotiation over a connection.
type handshaker struct {
	// Immutable.
	raw     net.Conn
	options handshakeOptions

	// Owned by the goroutine of the handshake.
	n    negotiation
	conn net.Conn // raw, or TLS on top of it
}

func newHandshake(conn net.Conn, cat catalog, o handshakeOptions) *handshaker {
	if o.authorizer != nil {
		cat = authorized{cat, o.authorizer}
	}
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetNoDelay(true) // replies are small and awaited; an inherited socket may be set otherwise
	}
	h := &handshaker{raw: conn, options: o, conn: conn}
	h.n = negotiation{
		catalog:      cat,
		tls:          o.tls,
		shuttingDown: o.shuttingDown,
		peer:         newPeer(conn),
		spill:        h.send,
	}
	return h
}

// run is the handshake from the greeting to the choice of an export.
func (h *handshaker) run() error {
	if err := h.send(greeting()); err != nil {
		return err
	}
	var flags [4]byte
	if err := h.receive(flags[:]); err != nil {
		return err
	}
	if err := h.n.greeted(ClientFlags(binary.BigEndian.Uint32(flags[:]))); err != nil {
		return err
	}
	for {
		chosen, err := h.haggle()
		if chosen || err != nil {
			return err
		}
	}
}

// haggle takes one option and does what it asks for.
func (h *handshaker) haggle() (chosen bool, err error) {
	o, err := h.receiveOption()
	if err != nil {
		return false, err
	}
	h.n.out = h.n.out[:0]
	end := h.n.step(o)
	if end.verdict == verdictTransmission {
		h.n.result.welcome = h.n.out
		return true, h.n.spillErr
	}
	if err := h.sendReplies(end); err != nil {
		return false, err
	}
	switch end.verdict {
	case verdictStartTLS:
		return false, h.startTLS()
	case verdictClose:
		return false, end.reason
	}
	return false, nil
}

// sendReplies sends what the option has been answered. A client that has said goodbye need not be there
// any more to hear the answer.
func (h *handshaker) sendReplies(end outcome) error {
	err := h.n.spillErr
	if err == nil && len(h.n.out) > 0 {
		err = h.send(h.n.out)
	}
	if end.verdict == verdictClose {
		return nil
	}
	return err
}

// receiveOption reads one option. Of its data only what the answer needs is kept in memory.
func (h *handshaker) receiveOption() (optionRequest, error) {
	var head [16]byte
	if err := h.receive(head[:]); err != nil {
		return optionRequest{}, err
	}
	var p protocol.NegotiationOptionHeader
	if _, err := binary.Decode(head[:], binary.BigEndian, &p); err != nil {
		return optionRequest{}, err
	}
	if p.OptionMagic != MagicOption {
		return optionRequest{}, fmt.Errorf("%w: option magic %#x", ErrProtocol, p.OptionMagic)
	}
	o := optionRequest{option: Option(p.ID), length: p.Length}
	keep, err := h.n.admit(o.option, o.length)
	if err != nil {
		return o, err
	}
	o.data = make([]byte, keep)
	if err := h.receive(o.data); err != nil {
		return o, err
	}
	_, err = io.CopyN(io.Discard, h.conn, int64(o.length)-int64(keep))
	return o, err
}

// startTLS puts TLS on the connection and asks whether the client's certificate may come in. What cancels the handshake ends TLS's by
// the deadline of the connection: with a context it would forget why it failed.
func (h *handshaker) startTLS() error {
	c := tls.Server(h.raw, h.options.credentials.config())
	if err := c.Handshake(); err != nil {
		return fmt.Errorf("%w: %w", ErrTLSFailed, err)
	}
	h.conn = c
	h.n.secured(h.n.peer.secured(c.ConnectionState()))
	if h.options.authorizer == nil {
		return nil
	}
	return h.options.authorizer.Authorize(h.n.peer)
}

func (h *handshaker) receive(b []byte) error {
	_, err := io.ReadFull(h.conn, b)
	return err
}

func (h *handshaker) send(b []byte) error {
	_, err := h.conn.Write(b)
	return err
}

// close ends a connection that came to nothing. TLS is shut down properly, unless the client has shown
// that it does not take part: then there is nobody to wait for.
func (h *handshaker) close(why error) {
	if errors.Is(why, ErrDeadline) || errors.Is(why, ErrCancelled) {
		h.raw.Close()
		return
	}
	h.conn.Close()
}

// explain turns what went wrong into one of the reasons for which a handshake ends. One that had failed when it was cancelled has
// failed.
func (h *handshaker) explain(ctx context.Context, err error) error {
	isLate := errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case ctx.Err() != nil && (isLate || errors.Is(err, ctx.Err())):
		return fmt.Errorf("%w: %w", ErrCancelled, context.Cause(ctx))
	case isLate:
		return fmt.Errorf("%w after %d options", ErrDeadline, h.n.options)
	}
	for _, known := range []error{ErrAborted, ErrProtocol, ErrRefused, ErrTLSFailed, ErrDenied} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrClientLeft, err)
}
