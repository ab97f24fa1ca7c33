package nbd

import (
	"fmt"
	"strings"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// The numbers of the handshake, in the order and the spelling of NBD proto.md, "Values". What go-nbd's
// vocabulary has is taken from there; the rest stands beside it. The numbers of the transmission phase
// are in wire_transmission.go.

// Magic numbers of the handshake. NBD proto.md, "Newstyle negotiation".
const (
	MagicInit        = protocol.NEGOTIATION_MAGIC_OLDSTYLE // "NBDMAGIC", common to both styles of negotiation
	MagicOption      = protocol.NEGOTIATION_MAGIC_OPTION   // "IHAVEOPT"
	MagicOptionReply = protocol.NEGOTIATION_MAGIC_REPLY
	MagicOldstyle    = uint64(0x00420281861253) // never sent; a client that meets it is talking to a relic
)

// DefaultPort is the TCP port that IANA gave to NBD.
const DefaultPort = 10809

// HandshakeFlags is what a server says of itself in the greeting.
type HandshakeFlags uint16

// Handshake flags.
const (
	HandshakeFixedNewstyle = HandshakeFlags(protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE)
	HandshakeNoZeroes      = HandshakeFlags(1 << 1)
)

func (f HandshakeFlags) String() string {
	return bitNames(uint64(f), "FIXED_NEWSTYLE", "NO_ZEROES")
}

// ClientFlags is what a client answers to the greeting.
type ClientFlags uint32

// Client flags.
const (
	ClientFixedNewstyle ClientFlags = 1 << 0
	ClientNoZeroes      ClientFlags = 1 << 1
)

func (f ClientFlags) String() string {
	return bitNames(uint64(f), "C_FIXED_NEWSTYLE", "C_NO_ZEROES")
}

// Option is the number of an option a client sends while haggling.
type Option uint32

// Options.
const (
	OptExportName      Option = 1
	OptAbort           Option = Option(protocol.NEGOTIATION_ID_OPTION_ABORT)
	OptList            Option = Option(protocol.NEGOTIATION_ID_OPTION_LIST)
	OptPeekExport      Option = 4 // withdrawn
	OptStartTLS        Option = 5
	OptInfo            Option = Option(protocol.NEGOTIATION_ID_OPTION_INFO)
	OptGo              Option = Option(protocol.NEGOTIATION_ID_OPTION_GO)
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
	OptExtendedHeaders Option = 11
)

func (o Option) String() string {
	switch o {
	case OptExportName:
		return "EXPORT_NAME"
	case OptAbort:
		return "ABORT"
	case OptList:
		return "LIST"
	case OptPeekExport:
		return "PEEK_EXPORT"
	case OptStartTLS:
		return "STARTTLS"
	case OptInfo:
		return "INFO"
	case OptGo:
		return "GO"
	case OptStructuredReply:
		return "STRUCTURED_REPLY"
	case OptListMetaContext:
		return "LIST_META_CONTEXT"
	case OptSetMetaContext:
		return "SET_META_CONTEXT"
	case OptExtendedHeaders:
		return "EXTENDED_HEADERS"
	}
	return fmt.Sprintf("option %d", uint32(o))
}

// Reply is the type of a reply to an option.
type Reply uint32

// repErr is the bit that makes a reply type an error.
const repErr Reply = 1 << 31

// Option reply types.
const (
	RepAck         Reply = Reply(protocol.NEGOTIATION_TYPE_REPLY_ACK)
	RepServer      Reply = Reply(protocol.NEGOTIATION_TYPE_REPLY_SERVER)
	RepInfo        Reply = Reply(protocol.NEGOTIATION_TYPE_REPLY_INFO)
	RepMetaContext Reply = 4

	RepErrUnsup         Reply = Reply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED)
	RepErrPolicy        Reply = repErr | 2
	RepErrInvalid       Reply = repErr | 3
	RepErrPlatform      Reply = repErr | 4
	RepErrTLSReqd       Reply = repErr | 5
	RepErrUnknown       Reply = Reply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN)
	RepErrShutdown      Reply = repErr | 7
	RepErrBlockSizeReqd Reply = repErr | 8
	RepErrTooBig        Reply = repErr | 9
	RepErrExtHeaderReqd Reply = repErr | 10
)

// Failed reports whether the reply says that the option was refused.
func (r Reply) Failed() bool { return r&repErr != 0 }

func (r Reply) String() string {
	switch r {
	case RepAck:
		return "ACK"
	case RepServer:
		return "SERVER"
	case RepInfo:
		return "INFO"
	case RepMetaContext:
		return "META_CONTEXT"
	case RepErrUnsup:
		return "ERR_UNSUP"
	case RepErrPolicy:
		return "ERR_POLICY"
	case RepErrInvalid:
		return "ERR_INVALID"
	case RepErrPlatform:
		return "ERR_PLATFORM"
	case RepErrTLSReqd:
		return "ERR_TLS_REQD"
	case RepErrUnknown:
		return "ERR_UNKNOWN"
	case RepErrShutdown:
		return "ERR_SHUTDOWN"
	case RepErrBlockSizeReqd:
		return "ERR_BLOCK_SIZE_REQD"
	case RepErrTooBig:
		return "ERR_TOO_BIG"
	case RepErrExtHeaderReqd:
		return "ERR_EXT_HEADER_REQD"
	}
	return fmt.Sprintf("reply %#x", uint32(r))
}

// Info is the type of one piece of information in answer to INFO or GO.
type Info uint16

// Information types.
const (
	InfoExport      Info = Info(protocol.NEGOTIATION_TYPE_INFO_EXPORT)
	InfoName        Info = Info(protocol.NEGOTIATION_TYPE_INFO_NAME)
	InfoDescription Info = Info(protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION)
	InfoBlockSize   Info = Info(protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE)
)

func (i Info) String() string {
	switch i {
	case InfoExport:
		return "INFO_EXPORT"
	case InfoName:
		return "INFO_NAME"
	case InfoDescription:
		return "INFO_DESCRIPTION"
	case InfoBlockSize:
		return "INFO_BLOCK_SIZE"
	}
	return fmt.Sprintf("info %d", uint16(i))
}

// bitNames spells a set of flags; names[i] belongs to bit i, and what has no name is shown as a number.
func bitNames(set uint64, names ...string) string {
	if set == 0 {
		return "0"
	}
	var parts []string
	for i, name := range names {
		if bit := uint64(1) << i; set&bit != 0 {
			parts, set = append(parts, name), set&^bit
		}
	}
	if set != 0 {
		parts = append(parts, fmt.Sprintf("%#x", set))
	}
	return strings.Join(parts, "|")
}
