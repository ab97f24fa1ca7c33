package nbd

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: each option by itself is answered as the specification asks and leaves the stream in step. Method: scenes on the
// state machine, one per requirement; each ends with LIST or another option that shows that haggling goes on.
func TestOptions(t *testing.T) {
	listing := line{OptList, nil, "SERVER disk (the system); SERVER rough (); ACK"}
	play(t, []scene{
		{"OPT-3", TLSOff, []line{{Option(77), bytesOf(1000), "ERR_UNSUP"}, {Option(0xffffffff), nil, "ERR_UNSUP"}, listing}},
		{"OPT-4", TLSOff, []line{{OptGo, info("no"), "ERR_UNKNOWN"}, {OptGo, info("no"), "ERR_UNKNOWN"}, listing}},
		{"OPT-5 BAD-15", TLSOff, []line{
			{OptStructuredReply, nil, "ACK"}, {OptStructuredReply, nil, "ERR_INVALID"},
			{OptExtendedHeaders, nil, "ACK"}, {OptExtendedHeaders, nil, "ERR_INVALID"},
		}},
		{"OPT-10 BAD-11", TLSOff, []line{
			{OptInfo, append(info("disk"), 0), "ERR_INVALID"}, {OptGo, append(info("disk"), 0, 0), "ERR_INVALID"},
			{OptListMetaContext, append(meta("disk"), 0), "ERR_INVALID"},
			{OptListMetaContext, append(meta("disk", "base:"), 0, 0, 0, 0), "ERR_INVALID"}, listing,
		}},
		{"ABT-1", TLSOff, []line{{OptAbort, nil, "ACK; -> close"}}},
		{"ABT-2", TLSOff, []line{{OptAbort, bytesOf(5000), "ACK; -> close"}}},
		{"LST-1", TLSOff, []line{listing}},
		{"LST-2 BAD-6", TLSOff, []line{{OptList, bytesOf(3), "ERR_INVALID"}, listing}},
		{"LST-4", TLSOptional, []line{
			listing, {option: tlsComesUp},
			{OptList, nil, "SERVER disk (the system); SERVER rough (); SERVER secret (); ACK"},
		}},
		{"PK-1", TLSOff, []line{{OptPeekExport, []byte("disk"), "ERR_UNSUP"}, listing}},
		{"STR-1", TLSOff, []line{
			{OptStructuredReply, bytesOf(1), "ERR_INVALID"}, {OptGo, info("disk"), diskExport + "; ACK; -> transmission"},
		}},
		{"STR-2", TLSOff, []line{
			{OptInfo, info("disk"), diskExport + "; ACK"}, {OptStructuredReply, nil, "ACK"},
			{OptInfo, info("disk"), "EXPORT 1048576 0x8ed; ACK"},
		}},
		{"EXT-1", TLSOff, []line{
			{OptExtendedHeaders, bytesOf(4), "ERR_INVALID"}, {OptExtendedHeaders, nil, "ACK"},
			{OptGo, info("disk"), "EXPORT 1048576 0x8ed; ACK; -> transmission"},
		}},
		{"EXT-2", TLSOptional, []line{
			{OptExtendedHeaders, nil, "ACK"}, {OptStructuredReply, nil, "ERR_EXT_HEADER_REQD"}, {OptStartTLS, nil, "ACK; -> TLS"},
			{option: tlsComesUp}, {OptStructuredReply, nil, "ACK"}, {OptExtendedHeaders, nil, "ACK"},
		}},
		{"EXT-11", TLSOff, []line{
			{OptStructuredReply, nil, "ACK"}, {OptSetMetaContext, meta("disk", "base:allocation"), "CONTEXT 0 base:allocation; ACK"},
			{OptGo, info("disk"), "EXPORT 1048576 0x8ed; ACK; -> transmission"},
		}},
	})
}

// Goal: the modes of TLS differ in just what the specification says (TLS-1). Method: scenes on the state machine.
func TestTLSModes(t *testing.T) {
	everything := []line{
		{OptList, nil, "ERR_TLS_REQD"}, {OptInfo, info("disk"), "ERR_TLS_REQD"}, {OptGo, info("disk"), "ERR_TLS_REQD"},
		{OptInfo, info("no"), "ERR_TLS_REQD"}, {OptStructuredReply, nil, "ERR_TLS_REQD"}, {OptExtendedHeaders, nil, "ERR_TLS_REQD"},
		{OptListMetaContext, meta("disk"), "ERR_TLS_REQD"}, {OptSetMetaContext, meta("disk"), "ERR_TLS_REQD"},
		{Option(99), bytesOf(9), "ERR_TLS_REQD"}, {OptPeekExport, nil, "ERR_TLS_REQD"},
	}
	play(t, []scene{
		{"STL-1 BAD-7", TLSRequired, []line{{OptStartTLS, bytesOf(2), "ERR_INVALID"}, {OptStartTLS, nil, "ACK; -> TLS"}}},
		{"STL-2", TLSOptional, []line{
			{OptStructuredReply, nil, "ACK"}, {OptSetMetaContext, meta("disk", "base:allocation"), "CONTEXT 0 base:allocation; ACK"},
			{OptStartTLS, nil, "ACK; -> TLS"}, {option: tlsComesUp},
			{OptSetMetaContext, meta("disk", "base:allocation"), "ERR_INVALID"},
			{OptGo, info("disk"), diskExport + "; ACK; -> transmission"},
		}},
		{"TLS-2", TLSOff, []line{
			{OptStartTLS, nil, "ERR_POLICY"}, {OptInfo, info("secret"), "ERR_UNKNOWN"}, {OptGo, info("secret"), "ERR_UNKNOWN"},
			{OptList, nil, "SERVER disk (the system); SERVER rough (); ACK"},
		}},
		{"TLS-3", TLSRequired, append(everything, line{OptAbort, nil, "ACK; -> close"})},
		{"TLS-3 EXPORT_NAME", TLSRequired, []line{{OptExportName, []byte("disk"), "-> close"}}},
		{"TLS-5", TLSRequired, []line{
			{OptStartTLS, nil, "ACK; -> TLS"}, {option: tlsComesUp}, {OptStartTLS, nil, "ERR_INVALID"}, {OptStructuredReply, nil, "ACK"},
			{OptGo, info("secret"), "EXPORT 512 0x81; ACK; -> transmission"},
		}},
		{"TLS-6", TLSOptional, []line{
			{OptInfo, info("secret"), "ERR_TLS_REQD"}, {OptGo, info("secret"), "ERR_TLS_REQD"}, {OptInfo, info("no"), "ERR_UNKNOWN"},
			{OptListMetaContext, meta("secret"), "ERR_UNKNOWN"}, {OptStructuredReply, nil, "ACK"},
			{OptSetMetaContext, meta("secret", "base:allocation"), "ERR_UNKNOWN"},
			{OptGo, info("disk"), "EXPORT 1048576 0x8ed; ACK; -> transmission"},
		}},
		{"TLS-6 EXPORT_NAME", TLSOptional, []line{{OptExportName, []byte("secret"), "-> close"}}},
	})
}

// Goal: flags that were not offered end the connection (HS-3, BAD-1), and a client that is not fixed newstyle has
// EXPORT_NAME and nothing else (HS-4, TLS-7, BAD-16). Method: the state machine is greeted with all kinds of flags.
func TestClientFlags(t *testing.T) {
	for bit := range 32 {
		var n negotiation
		err := n.greeted(1 << bit)
		require.Equal(t, bit > 1, err != nil, "bit %d", bit)
		if err != nil {
			require.ErrorIs(t, err, ErrProtocol)
		}
	}
	for _, o := range []Option{OptList, OptGo, OptStartTLS, OptAbort, Option(99)} {
		c := newConversation(t, TLSRequired)
		require.NoError(t, c.n.greeted(0))
		require.Equal(t, "-> close", c.say(o, nil), "%v", o)
	}
	c := newConversation(t, TLSOff)
	require.NoError(t, c.n.greeted(0))
	require.Equal(t, "134 bytes -> transmission", c.say(OptExportName, []byte("disk")))
	c = newConversation(t, TLSRequired)
	require.NoError(t, c.n.greeted(0))
	require.Equal(t, "-> close", c.say(OptExportName, []byte("disk")))
}

// Goal: option headers have limits, and below them nothing is cut off (OPT-8, OPT-9, BAD-5). Method: headers at, below and
// above each limit.
func TestOptionLimits(t *testing.T) {
	n := negotiation{fixed: true}
	for _, o := range []Option{OptGo, OptInfo, OptList, OptAbort, OptSetMetaContext, OptStartTLS, Option(4242)} {
		keep, err := n.admit(o, optionSkipMax)
		require.NoError(t, err)
		require.LessOrEqual(t, keep, metaDataMax, "data of %v that is held in memory", o)
		for _, length := range []uint32{optionSkipMax + 1, 0xffffffff} {
			_, err = n.admit(o, length)
			require.ErrorIs(t, err, ErrProtocol)
		}
	}
	_, err := n.admit(OptExportName, stringMax)
	require.NoError(t, err)
	_, err = n.admit(OptExportName, stringMax+1)
	require.ErrorIs(t, err, ErrProtocol)

	n = negotiation{fixed: true}
	for range optionsMax {
		_, err := n.admit(OptList, 0)
		require.NoError(t, err)
	}
	_, err = n.admit(OptList, 0)
	require.ErrorIs(t, err, ErrProtocol)
}

// Goal: a server that is going refuses everything but a goodbye (OPT-6). Method: scenes with shuttingDown set.
func TestShutdownDuringHaggling(t *testing.T) {
	c := newConversation(t, TLSOptional)
	c.n.shuttingDown = func() bool { return true }
	for _, o := range []Option{OptList, OptGo, OptInfo, OptStartTLS, OptStructuredReply, OptSetMetaContext, Option(99)} {
		require.Equal(t, "ERR_SHUTDOWN", c.say(o, nil), "%v", o)
	}
	require.Equal(t, "ACK; -> close", c.say(OptAbort, nil))
	require.Equal(t, "-> close", c.say(OptExportName, []byte("disk")))
}

// Goal: every refusal names its reason in at most 256 bytes of UTF-8 (OPT-11, OPT-12, GEN-1), however long the names are
// that it quotes. Method: one request per error type and per place that makes one, with long and odd names.
func TestRefusalsHaveAText(t *testing.T) {
	long := strings.Repeat("\u20ac", stringMax/3)
	requests := []struct {
		mode   TLSMode
		option Option
		data   []byte
	}{
		{TLSOff, OptStartTLS, nil}, {TLSOff, OptStartTLS, bytesOf(4)}, {TLSRequired, OptList, nil}, {TLSOff, Option(99), nil},
		{TLSOff, OptGo, info(long)}, {TLSOff, OptGo, info("")[:3]}, {TLSOff, OptInfo, info(strings.Repeat("\x00", 4000))},
		{TLSOff, OptInfo, info(strings.Repeat("\xff", 4000))}, {TLSOptional, OptGo, info("secret")},
		{TLSOff, OptInfo, raw(uint32(0), uint16(5000), string(bytesOf(10000)))}, {TLSOff, OptInfo, info(strings.Repeat("x", 4097))},
		{TLSOff, OptSetMetaContext, meta("disk")}, {TLSOff, OptListMetaContext, meta(long)}, {TLSOff, OptListMetaContext, nil},
		{TLSOff, OptListMetaContext, meta("disk", long+"\x00")}, {TLSOff, OptListMetaContext, meta("disk", make([]string, 257)...)},
		{TLSOff, OptListMetaContext, meta("disk", long, long, long, long, long)},
	}
	for i, r := range requests {
		t.Run(fmt.Sprint(i, r.option), func(t *testing.T) {
			c := newConversation(t, r.mode)
			c.say(r.option, r.data)
			replies := parseReplies(t, c.n.out)
			require.Len(t, replies, 1)
			require.True(t, replies[0].kind.Failed())
			text := string(replies[0].data)
			require.NoError(t, checkString(text))
			require.NotEmpty(t, text)
			require.LessOrEqual(t, len(text), 256)
		})
	}
}

// Goal: names are UTF-8 without NUL and not too long, everywhere (GEN-1, GEN-2, CTX-8, BAD-12). Method: each kind of bad
// name through each option that takes one, and the longest good one.
func TestNames(t *testing.T) {
	bad := map[string]string{
		"too long":  strings.Repeat("x", stringMax+1),
		"NUL":       "di\x00sk",
		"not UTF-8": "di\xffsk",
	}
	for why, name := range bad {
		t.Run(why, func(t *testing.T) {
			c := newConversation(t, TLSOff)
			require.Equal(t, "ACK", c.say(OptStructuredReply, nil))
			require.Equal(t, "ERR_INVALID", c.say(OptInfo, info(name)))
			require.Equal(t, "ERR_INVALID", c.say(OptGo, info(name)))
			require.Equal(t, "ERR_INVALID", c.say(OptListMetaContext, meta(name)))
			require.Equal(t, "ERR_INVALID", c.say(OptSetMetaContext, meta(name, "base:allocation")))
			require.Equal(t, "ERR_INVALID", c.say(OptSetMetaContext, meta("disk", name)))
			require.Equal(t, "-> close", c.say(OptExportName, []byte(name)))
		})
	}
	c := newConversation(t, TLSOff)
	longest := strings.Repeat("x", stringMax)
	c.n.catalog = fakeCatalog{{Name: longest, Contexts: []string{longest}}}
	require.Equal(t, "EXPORT 0 0x1; ACK", c.say(OptInfo, info(longest)))
	require.Equal(t, "CONTEXT 0 "+longest+"; ACK", c.say(OptListMetaContext, meta(longest, longest)))
}

// Goal: a long list is sent piece by piece and arrives whole (LST-1, LST-3). Method: a thousand exports with long
// descriptions, and a spill that counts.
func TestLongListIsSpilled(t *testing.T) {
	c := newConversation(t, TLSOff)
	var exports fakeCatalog
	for i := range 1000 {
		exports = append(exports, exportInfo{Name: fmt.Sprint(i), Description: strings.Repeat("d", 300)})
	}
	c.n.catalog = exports
	var sent bytes.Buffer
	c.n.spill = func(b []byte) error {
		require.Less(t, len(b), 2*repliesBuffered)
		sent.Write(b)
		return nil
	}
	keep, err := c.n.admit(OptList, 0)
	require.NoError(t, err)
	require.Zero(t, keep)
	c.n.step(optionRequest{option: OptList})
	sent.Write(c.n.out)
	replies := parseReplies(t, sent.Bytes())
	require.Len(t, replies, 1001)
	require.Equal(t, "SERVER 999 ("+strings.Repeat("d", 300)+")", replies[999].String())
	require.Equal(t, RepAck, replies[1000].kind)
}
