package nbd

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzNegotiation: whatever a client says, the server's answers keep to the protocol (INF-3, TLS-5). Method: the input is the mode of TLS,
// the client's flags and a series of options, as they come over the wire; every answer is checked against the rules that
// hold for all of them.
func FuzzNegotiation(f *testing.F) {
	series := func(mode byte, options ...[]byte) {
		input := []byte{mode, 3}
		for _, o := range options {
			input = append(input, o...)
		}
		f.Add(input)
	}
	series(0, optionBytes(OptStructuredReply, nil), optionBytes(OptSetMetaContext, meta("disk", "base:allocation")), optionBytes(OptGo, info("disk")))
	series(0, optionBytes(OptExtendedHeaders, nil), optionBytes(OptListMetaContext, meta("", "qemu:")), optionBytes(OptInfo, info("", InfoBlockSize, InfoName)))
	series(1, optionBytes(OptList, nil), optionBytes(OptGo, info("secret")), optionBytes(OptStartTLS, nil), optionBytes(OptGo, info("secret")))
	series(2, optionBytes(OptList, nil), optionBytes(Option(99), []byte("data")), optionBytes(OptStartTLS, nil), optionBytes(OptExportName, []byte("disk")))
	series(0, optionBytes(OptPeekExport, nil), optionBytes(OptAbort, []byte("bye")))
	series(0, optionBytes(OptGo, raw(uint32(0xffffffff), uint16(1))), optionBytes(OptSetMetaContext, raw(uint32(0), uint32(0xffffffff))))
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < 2 {
			return
		}
		c := &conversation{t: t, n: negotiation{catalog: testExports(), tls: TLSMode(input[0] % 3), peer: &Peer{}}}
		if c.n.greeted(ClientFlags(input[1])) != nil {
			return
		}
		for input = input[2:]; len(input) >= 16; {
			o := Option(binary.BigEndian.Uint32(input[8:]))
			length := binary.BigEndian.Uint32(input[12:])
			input = input[16:]
			keep, err := c.n.admit(o, length)
			if err != nil || int(length) > len(input) {
				return
			}
			if !c.fuzzStep(optionRequest{option: o, length: length, data: input[:keep]}) {
				return
			}
			input = input[length:]
		}
	})
}

// fuzzStep takes one step and checks it; false means that the haggling is over.
func (c *conversation) fuzzStep(o optionRequest) bool {
	c.n.out = nil
	wasTLS := c.n.peer.TLS
	end := c.n.step(o)
	if o.option == OptExportName {
		require.NotEqual(c.t, verdictContinue, end.verdict)
		require.True(c.t, end.verdict == verdictClose || len(c.n.out) == 10 || len(c.n.out) == 134)
		return false
	}
	replies := parseReplies(c.t, c.n.out)
	require.NotEmpty(c.t, replies)
	exports := 0
	for i, r := range replies {
		require.Equal(c.t, o.option, r.option)
		last := i == len(replies)-1
		require.Equal(c.t, last, r.kind == RepAck || r.kind.Failed(), "one ACK or error, at the end")
		if r.kind.Failed() {
			require.Len(c.t, replies, 1)
			require.NoError(c.t, checkString(string(r.data)))
			require.LessOrEqual(c.t, len(r.data), messageMax)
		}
		if r.kind == RepErrTLSReqd {
			require.False(c.t, wasTLS)
			require.NotEqual(c.t, TLSOff, c.n.tls)
		}
		if r.kind == RepInfo && binary.BigEndian.Uint16(r.data) == uint16(InfoExport) {
			exports++
		}
	}
	acked := replies[len(replies)-1].kind == RepAck
	if acked && (o.option == OptInfo || o.option == OptGo) {
		require.Equal(c.t, 1, exports)
	}
	require.Equal(c.t, acked && o.option == OptGo, end.verdict == verdictTransmission)
	if end.verdict == verdictTransmission {
		c.checkResult(wasTLS)
	}
	if end.verdict == verdictStartTLS {
		c.secure()
	}
	return end.verdict == verdictContinue || end.verdict == verdictStartTLS
}

// checkResult checks what no way through the handshake may lead to.
func (c *conversation) checkResult(wasTLS bool) {
	r := c.n.result
	require.True(c.t, wasTLS || c.n.tls != TLSRequired && !r.export.TLSOnly, "served in clear")
	require.Equal(c.t, r.structured || r.extended, r.flags&FlagSendDF != 0)
	require.True(c.t, r.extended || r.flags&FlagBlockStatusPayload == 0)
	require.True(c.t, r.structured || r.extended || len(r.contexts) == 0)
	seen := map[uint32]bool{}
	for _, m := range r.contexts {
		require.False(c.t, seen[m.id], "ids are unique")
		seen[m.id] = true
		require.Contains(c.t, r.export.Contexts, m.name)
	}
}
