package nbd

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fakeCatalog is a fixed set of exports, the first of which is the default.
type fakeCatalog []exportInfo

func (c fakeCatalog) list(*Peer) []exportInfo { return c }

func (c fakeCatalog) find(name string, _ *Peer) (exportInfo, bool) {
	for i, e := range c {
		if e.Name == name || name == "" && i == 0 {
			return e, true
		}
	}
	return exportInfo{}, false
}

// testExports are what most tests serve.
func testExports() fakeCatalog {
	return fakeCatalog{
		{
			Name: "disk", Description: "the system", Size: 1 << 20,
			Flags: FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagSendTrim | FlagSendWriteZeroes | FlagSendFastZero,
			Contexts: []string{
				"base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two",
			},
		},
		{
			Name: "rough", Size: 1 << 20, Flags: FlagHasFlags | FlagReadOnly | FlagSendTrim | FlagSendWriteZeroes,
			MinBlock: 4096, PreferredBlock: 65536, MaxPayload: 1 << 20, Contexts: []string{"base:allocation"},
		},
		{Name: "secret", Size: 512, TLSOnly: true, Contexts: []string{"base:allocation"}},
	}
}

// conversation plays a client against the state machine, without a connection.
type conversation struct {
	t testing.TB
	n negotiation
}

func newConversation(t testing.TB, mode TLSMode) *conversation {
	c := &conversation{t: t, n: negotiation{catalog: testExports(), tls: mode, peer: &Peer{}}}
	require.NoError(t, c.n.greeted(ClientFixedNewstyle|ClientNoZeroes))
	return c
}

// say sends one option and renders the answer: the replies, then where it leads if not to the next option.
func (c *conversation) say(o Option, data []byte) string {
	c.n.out = nil
	keep, err := c.n.admit(o, uint32(len(data)))
	if err != nil {
		return "-> close"
	}
	end := c.n.step(optionRequest{option: o, length: uint32(len(data)), data: data[:keep]})
	if o == OptExportName && end.verdict == verdictTransmission {
		return fmt.Sprintf("%d bytes -> transmission", len(c.n.out))
	}
	replies := parseReplies(c.t, c.n.out)
	lines := make([]string, 0, len(replies)+1)
	for _, r := range replies {
		require.Equal(c.t, o, r.option, "a reply names the option it answers")
		lines = append(lines, r.String())
	}
	switch end.verdict {
	case verdictStartTLS:
		lines = append(lines, "-> TLS")
	case verdictTransmission:
		lines = append(lines, "-> transmission")
	case verdictClose:
		require.Error(c.t, end.reason)
		lines = append(lines, "-> close")
	}
	return strings.Join(lines, "; ")
}

// secure is what a successful TLS handshake does.
func (c *conversation) secure() { c.n.secured(&Peer{TLS: true}) }

// testReply is one option reply, parsed.
type testReply struct {
	option Option
	kind   Reply
	data   []byte
}

// parseReplies takes a server's bytes apart and fails the test if they are not whole replies.
func parseReplies(t testing.TB, b []byte) []testReply {
	var replies []testReply
	for len(b) > 0 {
		require.GreaterOrEqual(t, len(b), 20)
		require.Equal(t, uint64(0x0003e889045565a9), binary.BigEndian.Uint64(b))
		r := testReply{option: Option(binary.BigEndian.Uint32(b[8:])), kind: Reply(binary.BigEndian.Uint32(b[12:]))}
		length := binary.BigEndian.Uint32(b[16:])
		require.LessOrEqual(t, int(length), len(b)-20)
		r.data, b = b[20:20+length], b[20+length:]
		replies = append(replies, r)
	}
	return replies
}

// String renders a reply for the tables. Of errors only the type counts; that each has a text is checked
// elsewhere.
func (r testReply) String() string {
	switch r.kind {
	case RepServer:
		n := binary.BigEndian.Uint32(r.data)
		return fmt.Sprintf("SERVER %s (%s)", r.data[4:4+n], r.data[4+n:])
	case RepMetaContext:
		return fmt.Sprintf("CONTEXT %d %s", binary.BigEndian.Uint32(r.data), r.data[4:])
	case RepInfo:
		return r.info()
	}
	return r.kind.String()
}

func (r testReply) info() string {
	kind, data := Info(binary.BigEndian.Uint16(r.data)), r.data[2:]
	switch kind {
	case InfoExport:
		flags := TransmissionFlags(binary.BigEndian.Uint16(data[8:]))
		return fmt.Sprintf("EXPORT %d %#x", binary.BigEndian.Uint64(data), uint16(flags))
	case InfoBlockSize:
		u32 := binary.BigEndian.Uint32
		return fmt.Sprintf("BLOCK_SIZE %d %d %d", u32(data), u32(data[4:]), u32(data[8:]))
	}
	return fmt.Sprintf("%v %s", kind, data)
}

// line is one option of a conversation and the answer it has to get.
type line struct {
	option Option
	data   []byte
	want   string
}

// scene is a conversation in one mode of TLS that proves a requirement.
type scene struct {
	id    string
	mode  TLSMode
	lines []line
}

// play runs every scene by itself.
func play(t *testing.T, scenes []scene) {
	for _, s := range scenes {
		t.Run(s.id, func(t *testing.T) {
			c := newConversation(t, s.mode)
			for _, l := range s.lines {
				if l.option == tlsComesUp {
					c.secure()
					continue
				}
				require.Equal(t, l.want, c.say(l.option, l.data), "%v %x", l.option, l.data)
			}
		})
	}
}

// tlsComesUp stands in a scene for the TLS handshake.
const tlsComesUp Option = 0xffff0000

// Short forms for the tables.
func bytesOf(n int) []byte                       { return make([]byte, n) }
func info(name string, types ...Info) []byte     { return infoData(name, types...) }
func meta(name string, queries ...string) []byte { return metaData(name, queries) }
func raw(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case string:
			b = append(b, v...)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, v)
		case uint16:
			b = binary.BigEndian.AppendUint16(b, v)
		}
	}
	return b
}

const (
	diskExport = "EXPORT 1048576 0x86d"
	diskPlain  = "INFO_NAME disk; " + diskExport // asked for by its default name
)

// Goal: the answer to GO is sent by the loop, and nothing of it ahead, however long it is; a list is sent ahead (T-X4). Method: replies of the length at which those are.
func TestAnswerToGoStaysTogether(t *testing.T) {
	for option, want := range map[Option]int{OptGo: 0, OptList: 1} {
		spilt := 0
		n := negotiation{spill: func([]byte) error { spilt++; return nil }}
		n.reply(option, RepInfo, make([]byte, repliesBuffered))
		n.done(option)
		require.Equal(t, want, spilt, option)
	}
}
