package nbd

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// negotiation is the handshake of one connection as a pure state machine: an option goes in, the bytes of
// the replies and a verdict come out. It does no I/O and knows no clock, so that everything a client can
// say can be tried on it in a test.
//
//	greeting -> client flags -> option, option, ... -> transmission
//	                             ^        |
//	                             +- TLS <-+  everything agreed before is forgotten
type negotiation struct {
	// Immutable.
	catalog      catalog
	tls          TLSMode
	shuttingDown func() bool
	spill        func([]byte) error // sends what is in out early; nil keeps everything

	// Owned by the goroutine of the handshake.
	peer       *Peer
	fixed      bool // both sides speak fixed newstyle
	noZeroes   bool // both sides leave out the padding after EXPORT_NAME
	options    int  // options seen
	structured bool
	extended   bool
	selected   selection
	pin        *infoPin // what the option just before was told by INFO
	out        []byte   // replies not yet sent
	spillErr   error    // the first error of spill
	result     negotiated
}

// verdict is what has to happen after an option.
type verdict int

const (
	verdictContinue     verdict = iota // read the next option
	verdictStartTLS                    // send the replies, then speak TLS
	verdictTransmission                // send the replies, then the client has its export
	verdictClose                       // send the replies if any, then close
)

// outcome is a verdict with, for verdictClose, its reason.
type outcome struct {
	verdict verdict
	reason  error
}

// optionRequest is one option as it arrived. Of long data only as much is kept as admit asked for.
type optionRequest struct {
	option Option
	length uint32 // as the client declared it
	data   []byte
}

// greeting returns the first bytes of the server. NBD proto.md, "Newstyle negotiation".
func greeting() []byte {
	return wireBytes(protocol.NegotiationNewstyleHeader{
		OldstyleMagic:  MagicInit,
		OptionMagic:    MagicOption,
		HandshakeFlags: uint16(HandshakeFixedNewstyle | HandshakeNoZeroes),
	})
}

// greeted takes the client's flags. A bit that was not offered may change the meaning of all that follows.
func (n *negotiation) greeted(f ClientFlags) error {
	if unknown := f &^ (ClientFixedNewstyle | ClientNoZeroes); unknown != 0 {
		return fmt.Errorf("%w: unknown client flags %#x", ErrProtocol, uint32(unknown))
	}
	n.fixed = f&ClientFixedNewstyle != 0
	n.noZeroes = f&ClientNoZeroes != 0
	return nil
}

// admit judges an option by its header and says how many bytes of its data step needs; the rest must be
// read and dropped. An error means that the connection has to be closed without an answer.
func (n *negotiation) admit(o Option, length uint32) (keep int, err error) {
	n.options++
	switch {
	case n.options > optionsMax:
		return 0, fmt.Errorf("%w: more than %d options", ErrProtocol, optionsMax)
	case !n.fixed && o != OptExportName:
		return 0, fmt.Errorf("%w: %v from a client that did not set C_FIXED_NEWSTYLE", ErrProtocol, o)
	case length > optionSkipMax:
		return 0, fmt.Errorf("%w: %v with %d bytes of data, limit %d", ErrProtocol, o, length, optionSkipMax)
	case o == OptExportName && length > stringMax:
		return 0, fmt.Errorf("%w: export name of %d bytes, limit %d", ErrProtocol, length, stringMax)
	}
	return min(int(length), optionRules[o].dataMax), nil
}

// step answers one option. The replies are appended to out.
func (n *negotiation) step(o optionRequest) outcome {
	rule := optionRules[o.option]
	pin := n.pin
	n.pin = nil
	if o.option == OptSetMetaContext {
		n.selected = selection{} // whatever becomes of it
	}
	switch {
	case o.option == OptAbort:
		n.reply(o.option, RepAck, nil)
		return outcome{verdictClose, ErrAborted}
	case o.option == OptExportName:
		return n.exportName(o)
	case n.tls == TLSRequired && !n.peer.TLS && o.option != OptStartTLS:
		return n.refuse(o.option, RepErrTLSReqd, "this server serves nothing in clear: start TLS first")
	case n.shuttingDown != nil && n.shuttingDown():
		return n.refuse(o.option, RepErrShutdown, "the server is shutting down: connect again later")
	case rule.answer == nil:
		return n.refuse(o.option, RepErrUnsup, "%v is not supported here", o.option)
	case rule.noData && o.length > 0:
		return n.refuse(o.option, RepErrInvalid, "%v takes no data, %d bytes came", o.option, o.length)
	}
	return rule.answer(n, o, pin)
}

// secured starts over after TLS came up: nothing that was said in clear counts any more.
// NBD proto.md, "NBD_OPT_STARTTLS".
func (n *negotiation) secured(p *Peer) {
	n.peer = p
	n.structured, n.extended = false, false
	n.selected, n.pin = selection{}, nil
}

// reply appends one reply. Once enough has gathered it is sent ahead, so that the length of a list costs
// no memory. What answers GO is short, and stays together: it is the loop that sends it.
func (n *negotiation) reply(o Option, t Reply, data []byte) {
	n.out = append(n.out, wireBytes(protocol.NegotiationReplyHeader{
		ReplyMagic: MagicOptionReply,
		ID:         uint32(o),
		Type:       uint32(t),
		Length:     uint32(len(data)),
	})...)
	n.out = append(n.out, data...)
	if n.spill != nil && o != OptGo && len(n.out) >= repliesBuffered {
		if n.spillErr == nil {
			n.spillErr = n.spill(n.out)
		}
		n.out = n.out[:0]
	}
}

// refuse answers an option with an error and a text that a person can act on; haggling goes on.
func (n *negotiation) refuse(o Option, t Reply, format string, args ...any) outcome {
	n.reply(o, t, []byte(cut(fmt.Sprintf(format, args...), messageMax)))
	return outcome{}
}

// done ends a series of replies.
func (n *negotiation) done(o Option) outcome {
	n.reply(o, RepAck, nil)
	return outcome{}
}

// wireBytes encodes a structure of fixed size.
func wireBytes(v any) []byte {
	b, err := binary.Append(nil, binary.BigEndian, v)
	if err != nil {
		panic(fmt.Sprintf("nbd: %T has no fixed size: %v", v, err)) // a mistake in this package, never input
	}
	return b
}

// checkString reports why s may not be a string on the wire. NBD proto.md, "Conventions".
func checkString(s string) error {
	switch {
	case len(s) > stringMax:
		return fmt.Errorf("%d bytes long, the limit is %d", len(s), stringMax)
	case strings.IndexByte(s, 0) >= 0:
		return fmt.Errorf("contains a NUL byte")
	case !utf8.ValidString(s):
		return fmt.Errorf("not UTF-8")
	}
	return nil
}

// shown is a client's string fit for a text.
func shown(s string) string { return fmt.Sprintf("%q", cut(s, nameShownMax)) }

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const mark = "..."
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
