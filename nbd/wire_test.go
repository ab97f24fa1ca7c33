package nbd

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: logs and errors spell the numbers of the wire as the specification does, and show those it does not have. Method: a
// table with the last value of each kind, one in its middle, one unknown.
func TestNamesOfNumbers(t *testing.T) {
	for want, v := range map[string]fmt.Stringer{
		"FIXED_NEWSTYLE|NO_ZEROES|0x8": HandshakeFlags(11),
		"C_FIXED_NEWSTYLE":             ClientFixedNewstyle,
		"0":                            ClientFlags(0),
		"EXTENDED_HEADERS":             Option(11),
		"PEEK_EXPORT":                  Option(4),
		"EXPORT_NAME":                  Option(1),
		"STARTTLS":                     Option(5),
		"option 12":                    Option(12),
		"ERR_EXT_HEADER_REQD":          Reply(0x8000000a),
		"ERR_PLATFORM":                 Reply(0x80000004),
		"ERR_BLOCK_SIZE_REQD":          Reply(0x80000008),
		"reply 0x8000000b":             Reply(0x8000000b),
		"INFO_BLOCK_SIZE":              Info(3),
		"info 4":                       Info(4),
		"BLOCK_STATUS_PAYLOAD":         TransmissionFlags(1 << 12),
		"HAS_FLAGS|ROTATIONAL":         TransmissionFlags(0x11),
		"FUA|PAYLOAD_LEN|0x40":         CommandFlags(0x61),
		"DONE":                         ChunkFlags(1),
		"NONE":                         ChunkType(0),
		"OFFSET_DATA":                  ChunkType(1),
		"OFFSET_HOLE":                  ChunkType(2),
		"chunk 0x3":                    ChunkType(3),
		"BLOCK_STATUS_EXT":             ChunkType(6),
		"ERROR":                        ChunkType(0x8001),
		"ERROR_OFFSET":                 ChunkType(0x8002),
		"READ":                         Command(0),
		"WRITE":                        Command(1),
		"DISC":                         Command(2),
		"FLUSH":                        Command(3),
		"TRIM":                         Command(4),
		"CACHE":                        Command(5),
		"WRITE_ZEROES":                 Command(6),
		"BLOCK_STATUS":                 Command(7),
		"RESIZE":                       Command(8),
		"command 9":                    Command(9),
		"OK":                           Errno(0),
		"EPERM":                        Errno(1),
		"EIO":                          Errno(5),
		"ENOMEM":                       Errno(12),
		"EINVAL":                       Errno(22),
		"ENOSPC":                       Errno(28),
		"EOVERFLOW":                    Errno(75),
		"ENOTSUP":                      Errno(95),
		"ESHUTDOWN":                    Errno(108),
		"error 2":                      Errno(2),
		"HOLE|ZERO":                    BlockState(3),
		"off":                          TLSOff,
		"optional":                     TLSOptional,
		"required":                     TLSRequired,
	} {
		require.Equal(t, want, v.String())
	}
	require.True(t, ChunkErrorOffset.Failed())
	require.False(t, ChunkBlockStatus.Failed())
}

// Goal: a peer is named by what is known of it. Method: a table.
func TestPeerNames(t *testing.T) {
	for want, p := range map[string]*Peer{
		"unknown":                  {},
		"127.0.0.1:5":              {Addr: "127.0.0.1:5"},
		"unix pid=1 uid=2 gid=3":   {Unix: &UnixCredentials{PID: 1, UID: 2, GID: 3}},
		`a:1 TLS 1.3 dn="CN=host"`: {Addr: "a:1", TLS: true, TLSVersion: 0x304, DN: "CN=host"},
	} {
		require.Equal(t, want, p.String())
	}
}
