package wire

import (
	"encoding/hex"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// unhex reads bytes written as in a protocol trace.
func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	require.NoError(t, err)
	return b
}

// attributesHex is a regular file of 0x1000 bytes.
const attributesHex = "00000001 000001a4 00000001 00000000 00000000 0000000000001000 0000000000001000 0000000000000000 0000000000000007 0000000000000009" +
	"0000000000000000 0000000000000000 0000000000000000"

// Goal: calls are on the wire what RFC 5531 and RFC 1813 say. Method: bytes worked out by hand.
func TestCalls(t *testing.T) {
	cred := AuthSys("me", 1, 2, []uint32{3})
	call := AppendCall(nil, 0x01020304, ProgramNFS, uint32(ProcWrite), cred)
	call = AppendWrite(call, Handle{0xaa, 0xbb, 0xcc}, 5, 6, FileSync)
	FinishCall(call, 6+Padding(6))
	require.Equal(t, unhex(t, `80000068 01020304 00000000 00000002 000186a3 00000003 00000007
		00000001 0000001c 00000000 00000002 6d650000 00000001 00000002 00000001 00000003
		00000000 00000000
		00000003 aabbcc00 00000000 00000005 00000006 00000002 00000006`), call)
	n, last := Mark(call)
	require.Equal(t, len(call)-MarkBytes+8, n)
	require.True(t, last)
	SetXID(call, 0x0a0b0c0d)
	require.Equal(t, unhex(t, "0a0b0c0d"), call[4:8])

	require.Equal(t, unhex(t, "00000002 61620000 00000001 63000000 00000001 00000001 000001a4 00000000 00000000 00000001 00000000 00000010 00000000 00000000"),
		AppendCreate(nil, Handle("ab"), "c", 0o644, 16))
	require.Equal(t, unhex(t, "00000001 61000000 00000000 00000000 00000000 00000001 00000000 00000010 00000000 00000000 00000000"),
		AppendSetSize(nil, Handle("a"), 16))
	require.Equal(t, unhex(t, "000186a3 00000003 00000006 00000000"), AppendGetport(nil, ProgramNFS))
	require.Equal(t, unhex(t, "000186a3 00000003 00000004 74637036 00000000 00000000"), AppendGetaddr(nil, ProgramNFS))
	require.Equal(t, unhex(t, "00000001 61000000 00000000 00000007 00000008"), AppendRead(nil, Handle("a"), 7, 8))
	require.Equal(t, unhex(t, "00000001 61000000 00000000 00000000 00000000"), AppendCommit(nil, Handle("a")))
}

// heads are beginnings of replies, with what is to be read out of them.
var heads = []struct {
	name, hex string
	bytes     int
	errno     syscall.Errno // 0 = executed
	malformed bool
}{
	{"accepted", "00000007 00000001 00000000 00000000 00000000 00000000", 24, 0, false},
	{"accepted, with a verifier", "00000007 00000001 00000000 00000001 00000003 aabbcc00 00000000", 28, 0, false},
	{"no such program", "00000007 00000001 00000000 00000000 00000000 00000001", 24, syscall.EPROTONOSUPPORT, false},
	{"system error", "00000007 00000001 00000000 00000000 00000000 00000005", 24, syscall.EREMOTEIO, false},
	{"unknown accept_stat", "00000007 00000001 00000000 00000000 00000000 00000055", 24, syscall.EPROTO, false},
	{"credential refused", "00000007 00000001 00000001 00000001 00000005", 20, syscall.EACCES, false},
	{"another RPC", "00000007 00000001 00000001 00000000 00000002", 20, syscall.EPROTONOSUPPORT, false},
	{"a call", "00000007 00000000 00000000 00000000 00000000 00000000", 0, 0, true},
	{"neither accepted nor denied", "00000007 00000001 00000002", 0, 0, true},
	{"endless verifier", "00000007 00000001 00000000 00000000 ffffffff 00000000", 0, 0, true},
	{"unknown reject_stat", "00000007 00000001 00000001 00000009 00000002", 0, 0, true},
}

// Goal: the head of a reply is found however little of it has come, and no byte behind it is asked for. Method: a table, fed as the parser asks.
func TestHeads(t *testing.T) {
	for _, c := range heads {
		t.Run(c.name, func(t *testing.T) {
			all := unhex(t, c.hex)
			have := 0
			for {
				h, need, err := ParseHead(all[:have])
				if c.malformed && err != nil {
					require.ErrorIs(t, err, ErrMalformed)
					return
				}
				require.NoError(t, err)
				if need == 0 {
					require.False(t, c.malformed)
					require.Equal(t, uint32(7), h.XID)
					require.Equal(t, c.bytes, h.Bytes)
					require.Equal(t, len(all), h.Bytes)
					if c.errno != 0 {
						require.ErrorIs(t, h.Err, c.errno)
					} else {
						require.NoError(t, h.Err)
					}
					return
				}
				require.Greater(t, need, have)
				require.LessOrEqual(t, need, len(all))
				have = need
			}
		})
	}
}

// Goal: results are read as RFC 1813 has them. Method: bytes worked out by hand, whole and cut short at every place.
func TestResults(t *testing.T) {
	wcc := "00000001 0000000000001000 0000000000000000 0000000000000000 00000001" + attributesHex
	for _, c := range []struct {
		name, hex string
		want      any
		parse     func([]byte) (any, error)
	}{
		{"GETATTR", "00000000" + attributesHex, Attributes{Type: TypeRegular, Mode: 0o644, SizeBytes: 4096, UsedBytes: 4096, FSID: 7, FileID: 9},
			func(b []byte) (any, error) { return ParseGetattr(b) }},
		{"LOOKUP", "00000000 00000003 aabbcc00 00000000 00000000", Found{Handle: Handle{0xaa, 0xbb, 0xcc}},
			func(b []byte) (any, error) { return ParseLookup(b) }},
		{"CREATE", "00000000 00000001 00000001 aa000000 00000000" + wcc, Found{Handle: Handle{0xaa}},
			func(b []byte) (any, error) { return ParseCreate(b) }},
		{"ACCESS", "00000000 00000000 0000000d", uint32(AccessRead | AccessModify | AccessExtend),
			func(b []byte) (any, error) { return ParseAccess(b) }},
		{"FSINFO", "00000000 00000000 00100000 00100000 00000001 00080000 00080000 00000001 00001000 0000ffffffffffff 0000000000000001 0000001b",
			Sizes{1 << 20, 1 << 19, 1<<48 - 1}, func(b []byte) (any, error) { return ParseFsinfo(b) }},
		{"WRITE", "00000000" + wcc + "00001000 00000000 0102030405060708", Written{4096, Unstable, 0x0102030405060708},
			func(b []byte) (any, error) { return ParseWrite(b) }},
		{"COMMIT", "00000000" + wcc + "0102030405060708", uint64(0x0102030405060708), func(b []byte) (any, error) { return ParseCommit(b) }},
		{"SETATTR", "00000000 00000000 00000000", nil, func(b []byte) (any, error) { return nil, ParseSetattr(b) }},
		{"GETPORT", "00000801", uint32(2049), func(b []byte) (any, error) { return ParseGetport(b) }},
		{"GETADDR", "00000006 3a3a2e382e310000", uint32(2049), func(b []byte) (any, error) { return ParseGetaddr(b) }},
		{"GETADDR of what does not listen", "00000000", uint32(0), func(b []byte) (any, error) { return ParseGetaddr(b) }},
		{"MNT", "00000000 00000002 abcd0000 00000002 00000001 00000006", Handle{0xab, 0xcd},
			func(b []byte) (any, error) { h, _, err := ParseMount(b); return h, err }},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := unhex(t, c.hex)
			got, err := c.parse(all)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
			for n := range all {
				_, err := c.parse(all[:n])
				require.ErrorIs(t, err, ErrMalformed, "%d bytes", n)
			}
		})
	}
}

// Goal: an address that is none is an error. Method: a table.
func TestAddressesThatAreNone(t *testing.T) {
	for _, address := range []string{"x", "::1", ".", "::.256.1", "::.8.-1", "::.8.", "::.8.1 "} {
		_, err := ParseGetaddr(appendOpaque(nil, address))
		require.ErrorIs(t, err, ErrMalformed, address)
	}
}

// Goal: an error of a server is found as its errno. Method: statuses known and unknown.
func TestStatuses(t *testing.T) {
	_, err := ParseWrite(unhex(t, "0000001c 00000000 00000000"))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "NFS3ERR_NOSPC")
	require.ErrorIs(t, Status(12345).err(), syscall.EIO)
	_, _, err = ParseMount(unhex(t, "0000000d"))
	var status *StatusError
	require.True(t, errors.As(err, &status))
	require.Equal(t, StatusAccess, status.Status)
}

// Goal: READ is read up to its data, of which no byte is asked for, and data that was not asked for is refused. Method: by hand.
func TestReadResults(t *testing.T) {
	bare := unhex(t, "00000000 00000000 00000005 00000001 00000005")
	r, need, err := ParseRead(bare, 5)
	require.NoError(t, err)
	require.Zero(t, need)
	require.Equal(t, ReadResult{DataBytes: 5, EOF: true, HeadBytes: 20}, r)
	_, _, err = ParseRead(bare, 4)
	require.ErrorIs(t, err, ErrMalformed)
	long := unhex(t, "00000000 00000001"+attributesHex+"00000005 00000000 00000006")
	_, need, err = ParseRead(long[:8], 8)
	require.NoError(t, err)
	require.Equal(t, len(long), need)
	_, _, err = ParseRead(long, 8)
	require.ErrorIs(t, err, ErrMalformed, "count and length differ")
	r, _, err = ParseRead(unhex(t, "00000046 00000000"), 8)
	require.NoError(t, err)
	require.ErrorIs(t, r.Err, syscall.ESTALE)
}

// Goal: no reply makes a parser panic, ask for less than it has, or for a head without end. Method: fuzzing.
func FuzzReply(f *testing.F) {
	for _, c := range heads {
		f.Add(unhex(f, c.hex))
	}
	f.Add(unhex(f, "00000000 00000001"+attributesHex+"00000005 00000000 00000005"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, need, err := ParseHead(b)
		if err == nil && need == 0 && h.Bytes > len(b) {
			t.Fatalf("a head of %d bytes in %d", h.Bytes, len(b))
		}
		if err == nil && need != 0 && (need <= len(b) || need > 24+AuthBytesMax+4) {
			t.Fatalf("needs %d bytes and has %d", need, len(b))
		}
		r, need, err := ParseRead(b, 4096)
		if err == nil && need != 0 && (need <= len(b) || need > 20+attributesBytes) {
			t.Fatalf("READ needs %d bytes and has %d", need, len(b))
		}
		if r.DataBytes > 4096 {
			t.Fatalf("READ of %d bytes", r.DataBytes)
		}
		_, _ = ParseGetattr(b)
		_ = ParseSetattr(b)
		_, _ = ParseLookup(b)
		_, _ = ParseCreate(b)
		_, _ = ParseAccess(b)
		_, _ = ParseFsinfo(b)
		_, _ = ParseWrite(b)
		_, _ = ParseCommit(b)
		_, _, _ = ParseMount(b)
		_, _ = ParseGetport(b)
		_, _ = ParseGetaddr(b)
	})
}
