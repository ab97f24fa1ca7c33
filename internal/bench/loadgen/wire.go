package loadgen

import "github.com/pojntfx/go-nbd/pkg/protocol"

// Numbers of the wire, in the order and spelling of NBD proto.md. Those that go-nbd has
// are its own.
const (
	nbdMagic   = protocol.NEGOTIATION_MAGIC_OLDSTYLE // "NBDMAGIC"
	optMagic   = protocol.NEGOTIATION_MAGIC_OPTION   // "IHAVEOPT"
	replyMagic = protocol.NEGOTIATION_MAGIC_REPLY

	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)

	optGo              = protocol.NEGOTIATION_ID_OPTION_GO
	optStructuredReply = uint32(8)

	repAck       = protocol.NEGOTIATION_TYPE_REPLY_ACK
	repInfo      = protocol.NEGOTIATION_TYPE_REPLY_INFO
	repErrorFlag = uint32(1 << 31)

	infoExport = protocol.NEGOTIATION_TYPE_INFO_EXPORT
)

// Transmission flags.
const (
	flagReadOnly  = uint16(1 << 1)
	flagSendFlush = uint16(1 << 2)
	flagSendFUA   = uint16(1 << 3)
)

// Transmission: requests.
const (
	requestMagic = protocol.TRANSMISSION_MAGIC_REQUEST

	cmdRead  = protocol.TRANSMISSION_TYPE_REQUEST_READ
	cmdWrite = protocol.TRANSMISSION_TYPE_REQUEST_WRITE
	cmdDisc  = protocol.TRANSMISSION_TYPE_REQUEST_DISC
	cmdFlush = uint16(3)

	cmdFlagFUA = uint16(1 << 0)

	requestBytes = 28 // NBD proto.md, "Request message".
)

// Transmission: replies.
const (
	simpleReplyMagic     = protocol.TRANSMISSION_MAGIC_REPLY
	structuredReplyMagic = uint32(0x668e33ef)

	simpleReplyBytes     = 16 // NBD proto.md, "Simple reply message".
	structuredReplyBytes = 20 // NBD proto.md, "Structured reply chunk message".
	offsetBytes          = 8  // in front of the data of an OFFSET_DATA chunk
	holeBytes            = 12 // the whole payload of an OFFSET_HOLE chunk

	replyFlagDone = uint16(1 << 0)

	replyTypeNone       = uint16(0)
	replyTypeOffsetData = uint16(1)
	replyTypeOffsetHole = uint16(2)
	replyTypeErrorFlag  = uint16(1 << 15)
)
