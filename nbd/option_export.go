package nbd

import (
	"encoding/binary"
	"fmt"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// exportNamePadding is the zeroes after the answer to EXPORT_NAME, unless both sides do without.
const exportNamePadding = 124

// infoPin remembers what INFO told, for a GO that follows at once.
type infoPin struct {
	asked      string
	generation uint64
}

// infoRequest is the data of INFO and GO.
type infoRequest struct {
	name                          string
	wantsName, wantsText, wantsBS bool
}

// exportName answers EXPORT_NAME, which has no way to say no but to hang up. NBD proto.md,
// "NBD_OPT_EXPORT_NAME".
func (n *negotiation) exportName(o optionRequest) outcome {
	no := func(format string, args ...any) outcome {
		return outcome{verdictClose, fmt.Errorf("%w: %v: %w", ErrRefused, o.option, fmt.Errorf(format, args...))}
	}
	name := string(o.data)
	if err := checkString(name); err != nil {
		return outcome{verdictClose, fmt.Errorf("%w: export name: %w", ErrProtocol, err)}
	}
	switch {
	case n.tls == TLSRequired && !n.peer.TLS:
		return no("TLS is required")
	case n.shuttingDown != nil && n.shuttingDown():
		return no("the server is shutting down")
	}
	e, _, err := n.lookup(o.option, name)
	if err != nil {
		return no("%w", err)
	}
	if !n.agree(e) {
		return no("%w", noExport(name))
	}
	n.result.oldStyle = true
	n.out = binary.BigEndian.AppendUint64(n.out, e.Size)
	n.out = binary.BigEndian.AppendUint16(n.out, uint16(n.result.flags))
	if !n.noZeroes {
		n.out = append(n.out, make([]byte, exportNamePadding)...)
	}
	return outcome{verdict: verdictTransmission}
}

// infoOrGo answers INFO and GO: the same questions, after the second of which the client has its export.
// NBD proto.md, "NBD_OPT_INFO and NBD_OPT_GO".
func (n *negotiation) infoOrGo(o optionRequest, pin *infoPin) outcome {
	q, t, err := parseInfo(o)
	if err != nil {
		return n.refuse(o.option, t, "%v: %v", o.option, err)
	}
	e, t, err := n.lookup(o.option, q.name)
	if err != nil {
		return n.refuse(o.option, t, "%v", err)
	}
	if o.option == OptGo && pin != nil && pin.asked == q.name && pin.generation != e.Generation {
		return n.refuse(o.option, RepErrUnknown, "export %s has changed since INFO: ask again", shown(q.name))
	}
	if o.option == OptGo && !n.agree(e) {
		return n.refuse(o.option, RepErrUnknown, "%v", noExport(q.name))
	}
	n.tellInfo(o.option, &e, &q)
	n.done(o.option)
	if o.option == OptInfo {
		n.pin = &infoPin{asked: q.name, generation: e.Generation}
		return outcome{}
	}
	n.result.blockSizes = q.wantsBS
	return outcome{verdict: verdictTransmission}
}

// tellInfo sends the information replies, each type at most once. The name is told unasked to a client
// that used another one, as for the default export.
func (n *negotiation) tellInfo(o Option, e *exportInfo, q *infoRequest) {
	if q.wantsName || q.name != e.Name {
		n.reply(o, RepInfo, append(binary.BigEndian.AppendUint16(nil, uint16(InfoName)), e.Name...))
	}
	if q.wantsText && e.Description != "" {
		n.reply(o, RepInfo, append(binary.BigEndian.AppendUint16(nil, uint16(InfoDescription)), e.Description...))
	}
	if q.wantsBS {
		minimum, preferred, maxPayload := e.blockSizes()
		n.reply(o, RepInfo, wireBytes(protocol.NegotiationReplyBlockSize{
			Type:               uint16(InfoBlockSize),
			MinimumBlockSize:   minimum,
			PreferredBlockSize: preferred,
			MaximumBlockSize:   maxPayload,
		}))
	}
	n.reply(o, RepInfo, wireBytes(protocol.NegotiationReplyInfo{
		Type:              uint16(InfoExport),
		Size:              e.Size,
		TransmissionFlags: uint16(n.flags(e)),
	}))
}

// flags returns what the client is told that it can do with the export.
func (n *negotiation) flags(e *exportInfo) TransmissionFlags {
	return e.flagsFor(n.structured, n.extended, len(n.selected.on(e)) > 0)
}

// agree closes the haggling on an export, which counts on its client from here: the answer has not been sent yet. It reports false when the
// export has gone since it was looked up.
func (n *negotiation) agree(e exportInfo) bool {
	if e.Export != nil && !e.Export.expect() {
		return false
	}
	n.result = negotiated{
		export:     e,
		structured: n.structured,
		extended:   n.extended,
		contexts:   n.selected.on(&e),
		flags:      n.flags(&e),
	}
	return true
}

// disagree is for a client that has got the answer, or not even that, and does not come.
func (n *negotiation) disagree() {
	if e := n.result.export.Export; e != nil {
		e.unexpect()
	}
	n.result = negotiated{}
}

// parseInfo takes the data of INFO or GO apart:
//
//	u32 length of name | name | u16 n | n * u16 information type
//
// Types we do not know are no error. The reply type says how to refuse what does not parse.
func parseInfo(o optionRequest) (q infoRequest, t Reply, err error) {
	const lengths = 4 + 2
	if o.length < lengths || len(o.data) < 4 {
		return q, RepErrInvalid, fmt.Errorf("%d bytes of data, at least %d are needed", o.length, lengths)
	}
	nameLen := binary.BigEndian.Uint32(o.data)
	if nameLen > o.length-lengths {
		return q, RepErrInvalid, fmt.Errorf("name length %d runs past the %d bytes of the option", nameLen, o.length)
	}
	if nameLen > stringMax {
		return q, RepErrInvalid, fmt.Errorf("name of %d bytes, the limit is %d", nameLen, stringMax)
	}
	q.name = string(o.data[4 : 4+nameLen])
	if err := checkString(q.name); err != nil {
		return q, RepErrInvalid, fmt.Errorf("name %s: %w", shown(q.name), err)
	}
	rest := o.data[4+nameLen:]
	count, types := int(binary.BigEndian.Uint16(rest)), rest[2:]
	if uint32(2*count) != o.length-lengths-nameLen {
		return q, RepErrInvalid, fmt.Errorf("%d information types do not fill the %d bytes of the option", count, o.length)
	}
	if len(types) < 2*count {
		return q, RepErrTooBig, fmt.Errorf("%d information types asked for, four exist", count)
	}
	for ; len(types) > 0; types = types[2:] {
		switch Info(binary.BigEndian.Uint16(types)) {
		case InfoName:
			q.wantsName = true
		case InfoDescription:
			q.wantsText = true
		case InfoBlockSize:
			q.wantsBS = true
		}
	}
	return q, RepAck, nil
}
