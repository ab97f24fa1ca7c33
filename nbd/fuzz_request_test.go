package nbd

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// fuzzStyles are the negotiations that the first byte of an input chooses from.
var fuzzStyles = []dialOptions{
	{style: styleSimple}, {style: styleSimple, unaware: true},
	{style: styleStructured}, {style: styleStructured, contexts: []string{ContextAllocation}},
	{style: styleExtended}, {style: styleExtended, contexts: []string{ContextAllocation, ContextAllocationDepth}},
}

// FuzzTransmission: whatever follows a handshake, the server neither falls nor hangs, answers what was complete, once each and by the rules, and
// is left with nothing. Method: the input is the choice of a style, where to cut the stream in two, and the stream; the cookies are
// replaced by numbers, so that the replies can be told apart; then the client closes its half and hears all.
func FuzzTransmission(f *testing.F) {
	for i := range fuzzStyles {
		for _, stream := range fuzzSeeds(fuzzStyles[i].style) {
			f.Add(append([]byte{byte(i), byte(len(stream) / 2)}, stream...))
		}
	}
	h := newHouse(f, houseOptions{engine: blockcore.EngineAuto, export: ExportOptions{AllocationDepth: true},
		disk: blocktest.FakeOptions{Log: nil, SizeBytes: mib, Features: blockcore.Features{FastZero: true}}})
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < 2 {
			return
		}
		conn, err := net.Dial("unix", h.listener.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		o := fuzzStyles[int(input[0])%len(fuzzStyles)]
		o.export = "disk"
		w, err := negotiate(conn, o)
		require.NoError(t, err)
		w.t = t
		stream := slices.Clone(input[2:])
		must := w.stamp(stream)
		cut := min(int(input[1]), len(stream))
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			// The server may close before it has taken all.
			_, _ = conn.Write(stream[:cut])
			_, _ = conn.Write(stream[cut:])
			_ = conn.(*net.UnixConn).CloseWrite()
		}()
		for err == nil {
			_, err = w.next()
		}
		require.True(t, isEnd(err), "%v", err)
		<-sent
		for _, cookie := range must {
			require.NotContains(t, w.pending, cookie, "no answer")
		}
		h.events.await(t, func(e Event) bool { _, ok := e.(ConnectionClosed); return ok })
		require.Zero(t, h.root.InFlight())
	})
}

// stamp numbers the requests of a stream, notes them as pending, and returns the numbers of those that must be answered. It stops where
// the server has to.
func (w *wireClient) stamp(stream []byte) (must []uint64) {
	size, magic := compactHeader, MagicRequest
	if w.style == styleExtended {
		size, magic = extendedHeader, MagicExtendedRequest
	}
	for len(stream) >= size && binary.BigEndian.Uint32(stream) == magic {
		w.cookie++
		binary.BigEndian.PutUint64(stream[8:], w.cookie)
		h := header{cookie: w.cookie, flags: CommandFlags(binary.BigEndian.Uint16(stream[4:])), command: Command(binary.BigEndian.Uint16(stream[6:])),
			offset: binary.BigEndian.Uint64(stream[16:]), length: uint64(binary.BigEndian.Uint32(stream[24:]))}
		if w.style == styleExtended {
			h.length = binary.BigEndian.Uint64(stream[24:])
		}
		stream = stream[size:]
		if h.command == CmdDisc {
			return must
		}
		length := uint64(0)
		if w.style == styleExtended && h.flags&CmdFlagPayloadLen != 0 || w.style != styleExtended && h.command == CmdWrite {
			length = h.length
		}
		if length > uint64(len(stream)) {
			// An error may be told before the payload is complete.
			w.expect(h, stream)
			return must
		}
		w.expect(h, stream[:length])
		must = append(must, h.cookie)
		stream = stream[length:]
	}
	return must
}

// fuzzSeeds are streams to begin with: each command, faults of each kind.
func fuzzSeeds(style replyStyle) [][]byte {
	request := func(command Command, flags CommandFlags, offset, length uint64, payload ...byte) []byte {
		if payload != nil && style == styleExtended {
			flags |= CmdFlagPayloadLen
		}
		return append(encodeHeader(style, header{command: command, flags: flags, offset: offset, length: length}), payload...)
	}
	all := slices.Concat(request(CmdWrite, CmdFlagFUA, 512, 4, 1, 2, 3, 4), request(CmdRead, 0, 0, 70_000), request(CmdFlush, 0, 0, 0),
		request(CmdTrim, 0, 0, 512), request(CmdWriteZeroes, CmdFlagFastZero|CmdFlagNoHole, 0, 512), request(CmdCache, 0, 0, 512),
		request(CmdBlockStatus, 0, 0, mib), request(CmdBlockStatus, CmdFlagReqOne, 0, mib))
	return [][]byte{
		all,
		append(all, request(CmdDisc, 0, 0, 0)...),
		slices.Concat(request(CmdRead, CmdFlagDF, mib-1, 2), request(CmdWrite, 0, mib, 1, 9), request(Command(99), 0, 0, 0), request(CmdFlush, 1<<7, 0, 0)),
		request(CmdWrite, 0, 0, 40_000, 1, 2, 3),
		request(CmdWrite, 0, 0, 1<<32-1, 1, 2, 3),
		request(CmdBlockStatus, 0, 0, 12, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0),
		request(CmdBlockStatus, CmdFlagPayloadLen, 0, 1<<62),
		append(request(CmdRead, 0, 0, 1), "garbage where a request should be, long enough"...),
		all[:40],
	}
}
