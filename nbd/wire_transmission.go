package nbd

import (
	"fmt"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// The numbers of the transmission phase, in the order and the spelling of NBD proto.md, "Values", with
// those of its extension "extended headers".

// Magic numbers of the transmission phase.
const (
	MagicRequest         = protocol.TRANSMISSION_MAGIC_REQUEST
	MagicSimpleReply     = protocol.TRANSMISSION_MAGIC_REPLY
	MagicStructuredReply = uint32(0x668e33ef)
	MagicExtendedRequest = uint32(0x21e41c71)
	MagicExtendedReply   = uint32(0x6e8a278c)
)

// TransmissionFlags is what an export can do.
type TransmissionFlags uint16

// Transmission flags.
const (
	FlagHasFlags           = TransmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS)
	FlagReadOnly           = TransmissionFlags(1 << 1)
	FlagSendFlush          = TransmissionFlags(1 << 2)
	FlagSendFUA            = TransmissionFlags(1 << 3)
	FlagRotational         = TransmissionFlags(1 << 4)
	FlagSendTrim           = TransmissionFlags(1 << 5)
	FlagSendWriteZeroes    = TransmissionFlags(1 << 6)
	FlagSendDF             = TransmissionFlags(1 << 7)
	FlagCanMultiConn       = TransmissionFlags(protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN)
	FlagSendResize         = TransmissionFlags(1 << 9) // experimental
	FlagSendCache          = TransmissionFlags(1 << 10)
	FlagSendFastZero       = TransmissionFlags(1 << 11)
	FlagBlockStatusPayload = TransmissionFlags(1 << 12)
)

func (f TransmissionFlags) String() string {
	return bitNames(uint64(f), "HAS_FLAGS", "READ_ONLY", "SEND_FLUSH", "SEND_FUA", "ROTATIONAL", "SEND_TRIM",
		"SEND_WRITE_ZEROES", "SEND_DF", "CAN_MULTI_CONN", "SEND_RESIZE", "SEND_CACHE", "SEND_FAST_ZERO",
		"BLOCK_STATUS_PAYLOAD")
}

// CommandFlags modifies one request.
type CommandFlags uint16

// Command flags.
const (
	CmdFlagFUA        CommandFlags = 1 << 0
	CmdFlagNoHole     CommandFlags = 1 << 1
	CmdFlagDF         CommandFlags = 1 << 2
	CmdFlagReqOne     CommandFlags = 1 << 3
	CmdFlagFastZero   CommandFlags = 1 << 4
	CmdFlagPayloadLen CommandFlags = 1 << 5
)

func (f CommandFlags) String() string {
	return bitNames(uint64(f), "FUA", "NO_HOLE", "DF", "REQ_ONE", "FAST_ZERO", "PAYLOAD_LEN")
}

// ChunkFlags modifies one structured or extended reply chunk.
type ChunkFlags uint16

// ChunkFlagDone marks the last chunk of a reply.
const ChunkFlagDone ChunkFlags = 1 << 0

func (f ChunkFlags) String() string { return bitNames(uint64(f), "DONE") }

// ChunkType is the type of one structured or extended reply chunk.
type ChunkType uint16

// chunkErr is the bit that makes a chunk type an error.
const chunkErr ChunkType = 1 << 15

// Chunk types.
const (
	ChunkNone           ChunkType = 0
	ChunkOffsetData     ChunkType = 1
	ChunkOffsetHole     ChunkType = 2
	ChunkBlockStatus    ChunkType = 5
	ChunkBlockStatusExt ChunkType = 6
	ChunkError          ChunkType = chunkErr | 1
	ChunkErrorOffset    ChunkType = chunkErr | 2
)

// Failed reports whether the chunk carries an error.
func (c ChunkType) Failed() bool { return c&chunkErr != 0 }

func (c ChunkType) String() string {
	switch c {
	case ChunkNone:
		return "NONE"
	case ChunkOffsetData:
		return "OFFSET_DATA"
	case ChunkOffsetHole:
		return "OFFSET_HOLE"
	case ChunkBlockStatus:
		return "BLOCK_STATUS"
	case ChunkBlockStatusExt:
		return "BLOCK_STATUS_EXT"
	case ChunkError:
		return "ERROR"
	case ChunkErrorOffset:
		return "ERROR_OFFSET"
	}
	return fmt.Sprintf("chunk %#x", uint16(c))
}

// Command is the type of a request.
type Command uint16

// Commands.
const (
	CmdRead        = Command(protocol.TRANSMISSION_TYPE_REQUEST_READ)
	CmdWrite       = Command(protocol.TRANSMISSION_TYPE_REQUEST_WRITE)
	CmdDisc        = Command(protocol.TRANSMISSION_TYPE_REQUEST_DISC)
	CmdFlush       = Command(3)
	CmdTrim        = Command(4)
	CmdCache       = Command(5)
	CmdWriteZeroes = Command(6)
	CmdBlockStatus = Command(7)
	CmdResize      = Command(8) // experimental
)

func (c Command) String() string {
	switch c {
	case CmdRead:
		return "READ"
	case CmdWrite:
		return "WRITE"
	case CmdDisc:
		return "DISC"
	case CmdFlush:
		return "FLUSH"
	case CmdTrim:
		return "TRIM"
	case CmdCache:
		return "CACHE"
	case CmdWriteZeroes:
		return "WRITE_ZEROES"
	case CmdBlockStatus:
		return "BLOCK_STATUS"
	case CmdResize:
		return "RESIZE"
	}
	return fmt.Sprintf("command %d", uint16(c))
}

// Errno is an error as the wire spells it. NBD proto.md, "Error values": no other value may be sent.
type Errno uint32

// Error values.
const (
	EPerm     = Errno(protocol.TRANSMISSION_ERROR_EPERM)
	EIO       = Errno(5)
	ENoMem    = Errno(12)
	EInval    = Errno(protocol.TRANSMISSION_ERROR_EINVAL)
	ENoSpc    = Errno(28)
	EOverflow = Errno(75)
	ENotSup   = Errno(95)
	EShutdown = Errno(108)
)

func (e Errno) String() string {
	switch e {
	case 0:
		return "OK"
	case EPerm:
		return "EPERM"
	case EIO:
		return "EIO"
	case ENoMem:
		return "ENOMEM"
	case EInval:
		return "EINVAL"
	case ENoSpc:
		return "ENOSPC"
	case EOverflow:
		return "EOVERFLOW"
	case ENotSup:
		return "ENOTSUP"
	case EShutdown:
		return "ESHUTDOWN"
	}
	return fmt.Sprintf("error %d", uint32(e))
}

// BlockState is the status of an extent in the context base:allocation.
type BlockState uint32

// States of base:allocation. NBD proto.md, "base: metadata context"; 0 is always a safe answer.
const (
	StateHole BlockState = 1 << 0
	StateZero BlockState = 1 << 1
)

func (s BlockState) String() string { return bitNames(uint64(s), "HOLE", "ZERO") }
