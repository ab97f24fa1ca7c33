package nbd

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: extended headers carry 64-bit lengths to the disk and back (EXT-3, EXT-4, EXT-8, EXT-10, TR-3, WZ-6, BS-8, REQ-6). Method: a disk of
// a few TiB that holds nothing; lengths above 4 GiB, and such that go past its end or wrap.
func TestExtendedLengths(t *testing.T) {
	const size = 1 << 43
	d := &vastDisk{size: size}
	h := newHouse(t, houseOptions{driver: d})
	w := h.dial(dialOptions{style: styleExtended, contexts: []string{ContextAllocation}})
	require.NotZero(t, w.remote.Flags&FlagBlockStatusPayload)
	all := blockcore.Range{Offset: 1, Length: size - 1}
	for _, command := range []Command{CmdTrim, CmdWriteZeroes} {
		w.ok(w.do(command, 0, 1, size-1, nil))
		require.Equal(t, all, d.take())
	}
	w.ok(w.do(CmdCache, 0, 1, size-1, nil))
	for _, flags := range []CommandFlags{0, CmdFlagReqOne} {
		a := w.ok(w.do(CmdBlockStatus, flags, 1, size-1, nil))
		require.Equal(t, []run{{size - 1, 0}}, a.status[w.ids[0]])
	}
	judge(t, w, []verdictRow{
		{"REQ-6", CmdTrim, 0, 1, size, EInval}, {"REQ-6", CmdTrim, 0, 512, math.MaxUint64 - 511, EInval},
		{"REQ-6", CmdWriteZeroes, 0, 1, size, ENoSpc}, {"REQ-6", CmdWriteZeroes, 0, 1, math.MaxUint64, ENoSpc},
		{"REQ-6", CmdCache, 0, 1, math.MaxUint64, EInval},
		{"REQ-6 BS-6", CmdBlockStatus, 0, 1, math.MaxUint64, EInval}, {"REQ-6 BS-6", CmdBlockStatus, 0, size, 1, EInval},
		{"RD-3", CmdRead, 0, 0, math.MaxUint64, EInval}, {"RD-3", CmdRead, 0, 0, 1 << 32, EInval},
	})
}

// Goal: payloads are known by their flag and nothing else, and are always consumed (EXT-5, EXT-6, EXT-7). Method: requests with a
// payload they have no use for, a WRITE without the flag, lengths at the bound and above it.
func TestExtendedPayloads(t *testing.T) {
	h := newHouse(t, houseOptions{})
	w := h.dial(dialOptions{style: styleExtended, contexts: []string{ContextAllocation}})
	for _, command := range []Command{CmdRead, CmdFlush, CmdTrim, CmdCache, CmdWriteZeroes, CmdResize, Command(77)} {
		for _, n := range []int{1, 28, 32, payloadInSlabMax + 1, 300_000} {
			hd := w.header(command, CmdFlagPayloadLen, 0, uint64(n))
			w.send(w.encode(hd, fill(1, n)))
			w.refused(EInval, w.await(hd.cookie))
			w.alive()
		}
	}
	hd := w.header(CmdWrite, 0, 0, 4096)
	w.send(w.encode(hd, nil))
	w.refused(EInval, w.await(hd.cookie))
	w.alive()
	w.ok(w.do(CmdWrite, 0, 0, 0, []byte{}))

	for _, command := range []Command{CmdRead, CmdWrite, CmdBlockStatus, Command(77)} {
		for _, length := range []uint64{payloadSkipMax + 1, 1 << 40, math.MaxInt64, math.MaxUint64} {
			w := h.dial(dialOptions{style: styleExtended, contexts: []string{ContextAllocation}})
			w.send(encodeHeader(styleExtended, header{command: command, flags: CmdFlagPayloadLen, length: length}))
			w.atEnd()
			end := h.closed()
			require.Equal(t, CauseProtocol, end.Cause)
			require.ErrorContains(t, end.Err, "payload")
		}
	}
	require.NotContains(t, h.log.Text(), "write [0x0, +0x1000)")
}

// Goal: a DISC ends the connection without a reply whatever stands in it (DI-1). Method: flags, a length and a payload that it cannot have.
func TestDisconnectIsNeverRefused(t *testing.T) {
	h := newHouse(t, houseOptions{})
	eachStyle(t, func(t *testing.T, style replyStyle) {
		for _, flags := range []CommandFlags{0, CmdFlagFUA, CmdFlagDF, CmdFlagPayloadLen, 0xffff} {
			w := h.dial(dialOptions{style: style})
			w.send(w.encode(header{command: CmdDisc, flags: flags, offset: math.MaxUint64, length: math.MaxUint64}, nil))
			w.atEnd()
			require.Equal(t, CauseDisconnect, h.closed().Cause)
		}
	})
}

// Goal: BLOCK_STATUS may name the contexts it wants in a payload (EXT-9, EXT-8). Method: one of two, both in turn, none, one twice, an
// unknown one, odd lengths, ranges past the end; and the same on a connection that selected no contexts, where it is not offered.
func TestBlockStatusPayload(t *testing.T) {
	h := newHouse(t, houseOptions{export: ExportOptions{AllocationDepth: true}})
	w := h.dial(dialOptions{style: styleExtended, contexts: []string{ContextAllocation, ContextAllocationDepth}})
	w.write(0, fill(1, 4096))
	ask := func(length uint64, ids ...uint32) []byte {
		b := binary.BigEndian.AppendUint64(nil, length)
		for _, id := range ids {
			b = binary.BigEndian.AppendUint32(b, id)
		}
		return b
	}
	first, second := w.ids[0], w.ids[1]
	a := w.ok(w.do(CmdBlockStatus, 0, 2048, 0, ask(4096, second)))
	require.Equal(t, map[uint32][]run{second: {{2048, 1}, {2048, 0}}}, a.status)
	a = w.ok(w.do(CmdBlockStatus, CmdFlagReqOne, 0, 0, ask(mib, second, first)))
	require.Equal(t, map[uint32][]run{first: {{4096, 0}}, second: {{4096, 1}}}, a.status)
	for name, payload := range map[string][]byte{
		"none": ask(4096), "twice": ask(4096, first, first), "unknown": ask(4096, first, 99), "past the end": ask(mib+1, first),
		"wraps": ask(math.MaxUint64, first), "nothing": ask(0, first), "odd": append(ask(4096, first), 0), "short": make([]byte, 7),
		"all twice": ask(4096, first, second, first, second), "long": make([]byte, 100_000),
	} {
		a := w.do(CmdBlockStatus, 0, 0, 0, payload)
		require.Equal(t, EInval, a.errno, name)
		w.alive()
	}
	w = h.dial(dialOptions{style: styleExtended})
	require.Zero(t, w.remote.Flags&FlagBlockStatusPayload, "not offered")
	w.refused(EInval, w.do(CmdBlockStatus, 0, 0, 0, ask(4096, first)))
	w.alive()
}
