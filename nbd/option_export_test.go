package nbd

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: INFO, GO and EXPORT_NAME tell the truth about the right export. Method: scenes on the state machine, one per
// requirement.
func TestChoosingAnExport(t *testing.T) {
	play(t, []scene{
		{"EN-2", TLSOff, []line{{OptExportName, []byte("no"), "-> close"}}},
		{"EN-3", TLSOff, []line{{OptExportName, nil, "10 bytes -> transmission"}}},
		{"EN-4", TLSOff, []line{{OptExportName, []byte("disk"), "10 bytes -> transmission"}}},
		{"EN-5", TLSOff, []line{{OptExportName, []byte("rough"), "10 bytes -> transmission"}}},
		{"INF-1", TLSOff, []line{
			{OptInfo, info("disk"), diskExport + "; ACK"}, {OptInfo, info(""), diskPlain + "; ACK"},
			{OptGo, info("disk"), diskExport + "; ACK; -> transmission"},
		}},
		{"INF-2", TLSOff, []line{
			{OptInfo, info("disk", 999, InfoBlockSize, 77, InfoExport, InfoBlockSize), "BLOCK_SIZE 1 4096 33554432; " + diskExport + "; ACK"},
		}},
		{"INF-4", TLSOff, []line{
			{OptInfo, info("no", InfoName, InfoBlockSize), "ERR_UNKNOWN"}, {OptGo, info("no"), "ERR_UNKNOWN"}, {OptStructuredReply, nil, "ACK"},
		}},
		{"INF-5", TLSOff, []line{
			{OptInfo, info("rough"), "EXPORT 1048576 0x3; ACK"}, {OptGo, info("rough"), "EXPORT 1048576 0x3; ACK; -> transmission"},
		}},
		{"INF-7", TLSOff, []line{{OptGo, info("disk"), diskExport + "; ACK; -> transmission"}}},
		{"INF-8", TLSOff, []line{
			{OptInfo, info("disk"), diskExport + "; ACK"}, {OptGo, info("no"), "ERR_UNKNOWN"}, {OptInfo, info("rough"), "EXPORT 1048576 0x3; ACK"},
		}},
		{"INF-9", TLSOff, []line{{OptInfo, info("disk"), diskExport + "; ACK"}}},
		{"BAD-9", TLSOff, []line{{OptGo, nil, "ERR_INVALID"}, {OptInfo, nil, "ERR_INVALID"}, {OptGo, bytesOf(5), "ERR_INVALID"}}},
		{"BAD-8", TLSOff, []line{
			{OptInfo, raw(uint32(0xffffffff), uint16(0)), "ERR_INVALID"}, {OptGo, raw(uint32(5), "disk", uint16(0)), "ERR_INVALID"},
			{OptInfo, raw(uint32(7), "disk", uint16(0)), "ERR_INVALID"},
		}},
		{"BAD-10", TLSOff, []line{
			{OptInfo, raw(uint32(4), "disk", uint16(1)), "ERR_INVALID"}, {OptGo, raw(uint32(4), "disk", uint16(0xffff), uint16(3)), "ERR_INVALID"},
		}},
		{"many types", TLSOff, []line{
			{OptInfo, raw(uint32(4), "disk", uint16(1500), string(bytesOf(3000))), diskExport + "; ACK"},
			{OptInfo, raw(uint32(4), "disk", uint16(60000), string(bytesOf(120000))), "ERR_TOO_BIG"},
		}},
		{"NFO-1", TLSOff, []line{
			{OptInfo, info("disk", InfoName), "INFO_NAME disk; " + diskExport + "; ACK"}, {OptInfo, info(""), diskPlain + "; ACK"},
		}},
		{"NFO-2", TLSOff, []line{
			{OptInfo, info("disk", InfoDescription), "INFO_DESCRIPTION the system; " + diskExport + "; ACK"},
			{OptInfo, info("rough", InfoDescription), "EXPORT 1048576 0x3; ACK"},
		}},
		{"NFO-3", TLSOff, []line{
			{OptInfo, info("rough", InfoBlockSize), "BLOCK_SIZE 4096 65536 1048576; EXPORT 1048576 0x3; ACK"},
		}},
		{"NFO-4", TLSOff, []line{
			{OptInfo, info("disk", InfoName, InfoName, InfoExport, InfoDescription, InfoDescription, InfoExport), "INFO_NAME disk; INFO_DESCRIPTION the system; " + diskExport + "; ACK"},
		}},
		{"SZ-4", TLSOff, []line{{OptInfo, info("disk", InfoBlockSize), "BLOCK_SIZE 1 4096 33554432; " + diskExport + "; ACK"}}},
	})
}

// Goal: the fixed parts are, byte for byte, what the specification draws (HS-1, HS-2, GEN-5, OPT-2, EN-1, NFO-0, INF-3).
// Method: golden bytes.
func TestGoldenBytes(t *testing.T) {
	require.Equal(t, "NBDMAGICIHAVEOPT\x00\x03", string(greeting()))

	c := newConversation(t, TLSOff)
	c.say(OptGo, info("disk"))
	want := "\x00\x03\xe8\x89\x04\x55\x65\xa9" + "\x00\x00\x00\x07" + "\x00\x00\x00\x03" + "\x00\x00\x00\x0c" +
		"\x00\x00" + "\x00\x00\x00\x00\x00\x10\x00\x00" + "\x08\x6d" +
		"\x00\x03\xe8\x89\x04\x55\x65\xa9" + "\x00\x00\x00\x07" + "\x00\x00\x00\x01" + "\x00\x00\x00\x00"
	require.Equal(t, want, string(c.n.out))

	for _, noZeroes := range []bool{false, true} {
		c := newConversation(t, TLSOff)
		c.n.noZeroes = noZeroes
		c.say(OptExportName, []byte("disk"))
		want := []byte("\x00\x00\x00\x00\x00\x10\x00\x00" + "\x08\x6d")
		if !noZeroes {
			want = append(want, make([]byte, 124)...)
		}
		require.True(t, bytes.Equal(want, c.n.out), "without zeroes: %v", noZeroes)
	}
}

// Goal: GO after INFO gets the same answer or none (INF-6). Method: the export changes between the two, with and without
// another option between.
func TestGoAfterInfo(t *testing.T) {
	c := newConversation(t, TLSOff)
	exports := testExports()
	c.n.catalog = exports
	before := c.say(OptInfo, info("disk"))
	require.Equal(t, before+"; -> transmission", c.say(OptGo, info("disk")))

	before = c.say(OptInfo, info("disk"))
	exports[0].Size, exports[0].Generation = 4096, 1
	require.Equal(t, "ERR_UNKNOWN", c.say(OptGo, info("disk")), before)
	require.Equal(t, "EXPORT 4096 0x86d; ACK; -> transmission", c.say(OptGo, info("disk")), "asked again")

	c.say(OptInfo, info("disk"))
	exports[0].Generation = 2
	c.say(OptList, nil)
	require.Equal(t, "EXPORT 4096 0x86d; ACK; -> transmission", c.say(OptGo, info("disk")), "after another option")

	c.say(OptInfo, info("rough"))
	exports[0].Generation = 3
	require.Equal(t, "EXPORT 4096 0x86d; ACK; -> transmission", c.say(OptGo, info("disk")), "after INFO of another")
}

// Goal: what the transmission phase is told is what the client was. Method: each way into it, then the result.
func TestNegotiatedResult(t *testing.T) {
	c := newConversation(t, TLSOff)
	c.say(OptGo, info("disk", InfoBlockSize))
	require.Equal(t, negotiated{export: testExports()[0], blockSizes: true, flags: 0x86d}, c.n.result)

	c = newConversation(t, TLSOff)
	c.say(OptStructuredReply, nil)
	c.say(OptSetMetaContext, meta("", "base:allocation"))
	c.say(OptExportName, []byte("disk"))
	require.Equal(t, negotiated{
		export: testExports()[0], structured: true, contexts: []metaContext{{0, "base:allocation"}}, flags: 0x8ed, oldStyle: true,
	}, c.n.result)

	c = newConversation(t, TLSOff)
	c.say(OptExtendedHeaders, nil)
	c.say(OptSetMetaContext, meta("disk", "qemu:allocation-depth"))
	c.say(OptGo, info(""))
	require.Equal(t, negotiated{
		export: testExports()[0], extended: true, contexts: []metaContext{{1, "qemu:allocation-depth"}}, flags: 0x18ed,
	}, c.n.result)
}

// Goal: flags promise nothing that the specification forbids to promise (TF-1, TF-2, STR-2, TF-B0, TF-B1, TF-B6, TF-B7,
// TF-B11, TF-B12). Method: a table of what an export claims and what a client has negotiated.
func TestTransmissionFlags(t *testing.T) {
	const all = ^TransmissionFlags(0)
	cases := []struct {
		claims                         TransmissionFlags
		structured, extended, contexts bool
		want                           TransmissionFlags
	}{
		{0, false, false, false, FlagHasFlags},
		{FlagSendDF | FlagBlockStatusPayload, false, false, true, FlagHasFlags},
		{0, true, false, true, FlagHasFlags | FlagSendDF},
		{0, false, true, false, FlagHasFlags | FlagSendDF},
		{0, true, true, true, FlagHasFlags | FlagSendDF | FlagBlockStatusPayload},
		{FlagSendFastZero, false, false, false, FlagHasFlags},
		{FlagSendFastZero | FlagSendWriteZeroes, false, false, false, FlagHasFlags | FlagSendFastZero | FlagSendWriteZeroes},
		{all, false, true, true, all &^ (FlagSendTrim | FlagSendWriteZeroes | FlagSendFastZero)},
		{all &^ FlagReadOnly, false, true, true, all &^ FlagReadOnly},
		{FlagReadOnly | FlagSendFlush | FlagCanMultiConn | FlagRotational, false, false, false,
			FlagHasFlags | FlagReadOnly | FlagSendFlush | FlagCanMultiConn | FlagRotational},
	}
	for _, c := range cases {
		e := exportInfo{Flags: c.claims}
		require.Equal(t, c.want, e.flagsFor(c.structured, c.extended, c.contexts), "%+v", c)
	}
}

// Goal: block sizes that a client could not live with are noticed before there is one (SZ-1, SZ-2, SZ-3). Method: a table.
func TestBlockSizes(t *testing.T) {
	cases := []struct {
		e  exportInfo
		ok bool
	}{
		{exportInfo{Size: 1000}, true},
		{exportInfo{Size: 1024, MinBlock: 512}, true},
		{exportInfo{Size: 1000, MinBlock: 512}, false},
		{exportInfo{MinBlock: 3}, false},
		{exportInfo{MinBlock: 65536}, true},
		{exportInfo{MinBlock: 131072}, false},
		{exportInfo{PreferredBlock: 256}, false},
		{exportInfo{PreferredBlock: 5000}, false},
		{exportInfo{PreferredBlock: 512}, true},
		{exportInfo{MinBlock: 4096, PreferredBlock: 512}, false},
		{exportInfo{MaxPayload: 1 << 20}, true},
		{exportInfo{MaxPayload: 1000}, false},
		{exportInfo{MaxPayload: 0xffffffff}, true},
		{exportInfo{MaxPayload: 1000000}, true},
	}
	for _, c := range cases {
		err := c.e.checkBlockSizes()
		require.Equal(t, c.ok, err == nil, "%+v: %v", c.e, err)
	}
}

// Goal: the numbers on the wire have not been mistyped (OPT-1, GEN-5, GEN-6). Method: the numbers as the
// specification spells them, and every magic against those reserved.
func TestMagics(t *testing.T) {
	require.Equal(t, "IHAVEOPT", string(binary.BigEndian.AppendUint64(nil, MagicOption)))
	require.EqualValues(t, 0x25609513, MagicRequest)
	require.EqualValues(t, 0x67446698, MagicSimpleReply)
	require.Equal(t, 10809, DefaultPort)
	for _, used := range []uint32{MagicRequest, MagicSimpleReply, MagicStructuredReply, MagicExtendedRequest, MagicExtendedReply} {
		require.NotContains(t, []uint32{0x12560953, 0x96744668, 0x25609514}, used)
	}
}
