package nbd

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

const mib = 1 << 20

// Goal: a client that does what clients do is served, in each style and on each engine. Method: a write, a read of it, a
// flush and a goodbye.
func TestTransmission(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			h := newHouse(t, houseOptions{engine: engine})
			w := h.dial(dialOptions{style: style})
			data := fill(1, 5000)
			w.write(4096, data)
			sameBytes(t, data, w.read(4096, 5000))
			w.flush()
			w.alive()
			w.disconnect()
			end := h.closed()
			require.Equal(t, CauseDisconnect, end.Cause)
			require.NoError(t, end.Err)
			require.Equal(t, uint64(5), end.Requests)
			require.Equal(t, uint64(5001), end.Read)
			require.Equal(t, uint64(5000), end.Written)
		})
	})
}

// Goal: requests and replies are laid out as the specification draws them (REQ-1, SR-1, SR-2, CH-1, CH-3, CH-4, EXT-3, EXT-4).
// Method: bytes written out by hand, both ways, in each style; a WRITE of "abcd" at 16, a READ of it, a FLUSH.
func TestGoldenRequests(t *testing.T) {
	const cookie = "0123456789abcdef"
	at, four := "0000000000000010", "00000004"
	long := "00000000" + four
	for name, g := range map[string]struct {
		style     replyStyle
		say, hear string
	}{
		"simple": {
			styleSimple,
			"25609513 0000 0001" + cookie + at + four + "61626364" + "25609513 0000 0000" + cookie + at + four +
				"25609513 0000 0003" + cookie + "0000000000000000 00000000",
			"67446698 00000000" + cookie + "67446698 00000000" + cookie + "61626364" + "67446698 00000000" + cookie,
		},
		"structured": {
			styleStructured,
			"25609513 0000 0001" + cookie + at + four + "61626364" + "25609513 0000 0000" + cookie + at + four +
				"25609513 0000 0003" + cookie + "0000000000000000 00000000",
			"668e33ef 0001 0000" + cookie + "00000000" + "668e33ef 0001 0001" + cookie + "0000000c" + at + "61626364" +
				"668e33ef 0001 0000" + cookie + "00000000",
		},
		"extended": {
			styleExtended,
			"21e41c71 0020 0001" + cookie + at + long + "61626364" + "21e41c71 0000 0000" + cookie + at + long +
				"21e41c71 0000 0003" + cookie + "0000000000000000 0000000000000000",
			"6e8a278c 0001 0000" + cookie + at + "0000000000000000" + "6e8a278c 0001 0001" + cookie + at + "000000000000000c" + at + "61626364" +
				"6e8a278c 0001 0000" + cookie + "0000000000000000 0000000000000000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHouse(t, houseOptions{}).dial(dialOptions{style: g.style})
			for _, request := range cutRequests(t, g.style, hexBytes(t, g.say)) {
				w.send(request)
				// Each is answered before the next one goes, since the order of replies is free.
				n := map[replyStyle]int{styleSimple: simpleReply, styleStructured: structuredReply, styleExtended: extendedReply}[g.style]
				want := hexBytes(t, g.hear)
				if request[7] == byte(CmdRead) {
					n += 4
					if g.style != styleSimple {
						n += 8
					}
				}
				got := make([]byte, n)
				_, err := io.ReadFull(w.in, got)
				require.NoError(t, err)
				require.Equal(t, want[:n], got)
				g.hear = hex.EncodeToString(want[n:])
			}
			require.Empty(t, g.hear)
		})
	}
}

func hexBytes(t *testing.T, s string) []byte {
	var b []byte
	for _, c := range s {
		if c != ' ' {
			b = append(b, byte(c))
		}
	}
	out, err := hex.DecodeString(string(b))
	require.NoError(t, err)
	return out
}

// cutRequests splits a stream of requests of which a WRITE carries four bytes.
func cutRequests(t *testing.T, style replyStyle, b []byte) [][]byte {
	var all [][]byte
	for len(b) > 0 {
		n := compactHeader
		if style == styleExtended {
			n = extendedHeader
		}
		if b[7] == byte(CmdWrite) {
			n += 4
		}
		require.GreaterOrEqual(t, len(b), n)
		all, b = append(all, b[:n]), b[n:]
	}
	return all
}

// Goal: a cookie is the client's business and comes back as it was (REQ-2). Method: remarkable values, one of them twice in
// a row, with all kinds of replies.
func TestCookies(t *testing.T) {
	h := newHouse(t, houseOptions{})
	eachStyle(t, func(t *testing.T, style replyStyle) {
		w := h.dial(dialOptions{style: style})
		for _, cookie := range []uint64{0, 1, math.MaxUint64, 1 << 63, uint64(MagicRequest)<<32 | uint64(MagicRequest), 7, 7} {
			for _, command := range []Command{CmdRead, CmdFlush, CmdResize} {
				w.send(w.encode(header{command: command, cookie: cookie, length: 8}, nil))
				require.Equal(t, command == CmdResize, w.await(cookie).errno != 0)
			}
		}
		w.alive()
	})
}

// verdictRow is one request and what becomes of it.
type verdictRow struct {
	id      string
	command Command
	flags   CommandFlags
	offset  uint64
	length  uint64 // of the header; a WRITE carries as many bytes, at most 1 MiB
	want    Errno
}

// judge sends each request to w, on a connection that must stay in step.
func judge(t *testing.T, w *wireClient, rows []verdictRow) {
	defer func(t testing.TB) { w.t = t }(w.t)
	for _, r := range rows {
		t.Run(fmt.Sprintf("%s %v %v %#x +%#x", r.id, r.command, r.flags, r.offset, r.length), func(t *testing.T) {
			w.t = t
			var payload []byte
			flags := r.flags
			if r.command == CmdWrite {
				payload = fill(3, int(r.length))
				if w.style == styleExtended {
					flags |= CmdFlagPayloadLen
				}
			}
			h := w.header(r.command, flags, r.offset, r.length)
			w.send(w.encode(h, payload))
			a := w.await(h.cookie)
			if r.want == 0 {
				w.ok(a)
			} else {
				w.refused(r.want, a)
			}
			w.alive()
		})
	}
}

// Goal: each kind of malformed request gets the error that the specification asks for, changes nothing and leaves the
// connection in step. Method: a table, in each style, on a disk of 1 MiB that cannot zero fast; the log of the disk and its
// contents show that nothing was done.
func TestRefusals(t *testing.T) {
	const end = mib
	rows := []verdictRow{
		{"REQ-3 BAD-18", Command(9), 0, 0, 4096, EInval},
		{"REQ-3 BAD-18", Command(100), 0, 0, 0, EInval},
		{"REQ-3 BAD-18", Command(0xffff), 0, math.MaxUint64, math.MaxUint32, EInval},
		{"RZ-0", CmdResize, 0, 2 * end, 0, EInval},

		{"REQ-4 BAD-19", CmdRead, CmdFlagNoHole, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdRead, 1 << 6, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdRead, 1 << 15, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdRead, CmdFlagReqOne, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdWrite, CmdFlagReqOne, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdWrite, CmdFlagNoHole, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdWrite, CmdFlagDF, 0, 100_000, EInval},
		{"REQ-4 BAD-19", CmdFlush, CmdFlagDF, 0, 0, EInval},
		{"REQ-4 BAD-19", CmdTrim, CmdFlagNoHole, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdTrim, CmdFlagFastZero, 0, 512, EInval},
		{"REQ-4 CA-2", CmdCache, CmdFlagDF, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdWriteZeroes, CmdFlagReqOne, 0, 512, EInval},
		{"REQ-4 WZ-5 BAD-28", CmdWriteZeroes, CmdFlagFastZero, 0, 512, EInval},
		{"REQ-4 BAD-19", CmdBlockStatus, CmdFlagDF, 0, 512, EInval},

		{"REQ-6 BAD-20 ERR-4", CmdRead, 0, end, 1, EInval},
		{"REQ-6 BAD-20 ERR-4", CmdRead, 0, end - 1, 2, EInval},
		{"REQ-6 BAD-20 ERR-4", CmdRead, 0, math.MaxUint64, 1, EInval},
		{"REQ-6 BAD-20 ERR-4", CmdRead, 0, math.MaxUint64 - 511, 512, EInval},
		{"REQ-6 BAD-20 ERR-4", CmdRead, 0, end + 1, 0, EInval},
		{"REQ-6 BAD-21 ERR-4 WR-2", CmdWrite, 0, end, 1, ENoSpc},
		{"REQ-6 BAD-21 ERR-4 WR-2", CmdWrite, 0, end - 100, 200, ENoSpc},
		{"REQ-6 BAD-21 ERR-4 WR-2", CmdWrite, 0, math.MaxUint64, 40_000, ENoSpc},
		{"REQ-6 BAD-22 ERR-4 TR-2", CmdTrim, 0, end - 512, 1024, EInval},
		{"REQ-6 BAD-22 ERR-4 TR-2", CmdTrim, 0, math.MaxUint64 - 511, 512, EInval},
		{"REQ-6 ERR-4 WZ-5", CmdWriteZeroes, 0, end - 512, 1024, ENoSpc},
		{"REQ-6 ERR-4 WZ-6", CmdWriteZeroes, 0, 512, math.MaxUint32, ENoSpc},
		{"REQ-6 ERR-4", CmdCache, 0, end, 1, EInval},

		{"BS-6 BAD-27", CmdBlockStatus, 0, 0, 512, EInval},
		{"BAD-26 RD-3", CmdRead, 0, 0, payloadMax + 1, EInval},
		{"BAD-26 RD-3", CmdRead, 0, 0, math.MaxUint32, EInval},

		{"ERR-5 command before range", Command(50), 1 << 9, end, 1, EInval},
		{"ERR-5 flags before range", CmdWrite, CmdFlagNoHole, end, 512, EInval},
		{"ERR-5 flags before range", CmdWriteZeroes, CmdFlagDF, end, 512, EInval},
		{"ERR-5 size before range", CmdWrite, 0, end, payloadMax + 512, EInval},
	}
	eachStyle(t, func(t *testing.T, style replyStyle) {
		h := newHouse(t, houseOptions{})
		w := h.dial(dialOptions{style: style})
		if style == styleSimple {
			rows := append(rows, verdictRow{"REQ-4 BAD-19 TF-1", CmdRead, CmdFlagDF, 0, 512, EInval},
				verdictRow{"REQ-4 BAD-19", CmdRead, CmdFlagPayloadLen, 0, 512, EInval},
				verdictRow{"REQ-4 BAD-19", CmdWrite, CmdFlagPayloadLen, 0, 512, EInval})
			judge(t, w, rows)
		} else {
			judge(t, w, rows)
		}
		sameBytes(t, make([]byte, mib), h.disk.Contents(blockcore.Range{Length: mib}))
		require.NotContains(t, h.log.Text(), "write")
		require.NotContains(t, h.log.Text(), "zero")
		require.NotContains(t, h.log.Text(), "discard")
	})
}

// Goal: what changes an export that is read-only is refused with EPERM, before anything but its flags is looked at, and all
// else works (WR-2, TR-2, WZ-5, ERR-4, ERR-5, TF-1, TF-2, TF-B1). Method: a table and the flags of a read-only export.
func TestReadOnly(t *testing.T) {
	h := newHouse(t, houseOptions{locked: true, disk: blocktest.FakeOptions{Features: blockcore.Features{FastZero: true}}})
	w := h.dial(dialOptions{style: styleStructured})
	want := FlagHasFlags | FlagReadOnly | FlagSendFlush | FlagSendFUA | FlagSendCache | FlagSendDF | FlagCanMultiConn
	require.Equal(t, want, w.remote.Flags)
	judge(t, w, []verdictRow{
		{"BAD-23 WR-2", CmdWrite, 0, 0, 512, EPerm},
		{"BAD-23 WR-2", CmdWrite, CmdFlagFUA, 0, 100_000, EPerm},
		{"BAD-23 TR-2", CmdTrim, 0, 0, 512, EPerm},
		{"BAD-23 WZ-5", CmdWriteZeroes, 0, 0, 512, EPerm},
		{"ERR-5 before range", CmdWrite, 0, mib, 512, EPerm},
		{"ERR-5 before size", CmdWrite, 0, 0, payloadMax + 1, EPerm},
		{"ERR-5 after flags", CmdWrite, CmdFlagDF, 0, 512, EInval},
		{"ERR-5 after flags", CmdWriteZeroes, CmdFlagFastZero, 0, 512, EInval},
		{"", CmdRead, 0, 0, 512, 0},
		{"", CmdFlush, 0, 0, 0, 0},
		{"", CmdCache, 0, 0, 512, 0},
	})
}

// Goal: requests of no bytes, and flushes that name a range, are taken kindly (REQ-7, REQ-8). Method: a table.
func TestEmptyRequests(t *testing.T) {
	eachStyle(t, func(t *testing.T, style replyStyle) {
		h := newHouse(t, houseOptions{})
		o := dialOptions{style: style}
		if style != styleSimple {
			o.contexts = []string{ContextAllocation}
		}
		rows := []verdictRow{
			{"REQ-7 BAD-24", CmdRead, 0, 0, 0, 0}, {"REQ-7 BAD-24", CmdRead, 0, mib, 0, 0},
			{"REQ-7 BAD-24", CmdWrite, 0, 0, 0, 0}, {"REQ-7 BAD-24", CmdWrite, CmdFlagFUA, mib, 0, 0},
			{"REQ-7 BAD-24", CmdTrim, 0, 0, 0, 0}, {"REQ-7 BAD-24", CmdTrim, CmdFlagFUA, 9, 0, 0},
			{"REQ-7 BAD-24", CmdWriteZeroes, 0, 0, 0, 0}, {"REQ-7 BAD-24", CmdWriteZeroes, CmdFlagNoHole, mib, 0, 0},
			{"REQ-7 BAD-24", CmdCache, 0, 0, 0, 0},
			{"REQ-7", CmdBlockStatus, 0, 0, 0, EInval},
			{"REQ-8", CmdFlush, 0, 4096, 512, 0}, {"REQ-8", CmdFlush, 0, math.MaxUint64, math.MaxUint32, 0},
		}
		judge(t, h.dial(o), rows)
	})
}

// Goal: FUA may stand on every command and no other flag is needed for it (TF-1, TF-B3). Method: a table of all commands.
func TestFUAOnEverything(t *testing.T) {
	eachStyle(t, func(t *testing.T, style replyStyle) {
		h := newHouse(t, houseOptions{})
		o := dialOptions{style: style}
		rows := []verdictRow{
			{"", CmdRead, CmdFlagFUA, 0, 512, 0}, {"", CmdWrite, CmdFlagFUA, 0, 512, 0}, {"", CmdFlush, CmdFlagFUA, 0, 0, 0},
			{"", CmdTrim, CmdFlagFUA, 0, 512, 0}, {"", CmdCache, CmdFlagFUA, 0, 512, 0}, {"", CmdWriteZeroes, CmdFlagFUA, 0, 512, 0},
		}
		if style != styleSimple {
			o.contexts = []string{ContextAllocation}
			rows = append(rows, verdictRow{"", CmdBlockStatus, CmdFlagFUA, 0, 512, 0})
		}
		judge(t, h.dial(o), rows)
	})
}

// Goal: a request with a wrong magic ends the connection at once, without an answer and without more being read
// (REQ-5, BAD-17, GEN-6, GEN-8). Method: wrong magics, whole headers and their first four bytes, behind a good request, in each
// style; the header of the other style is one of them.
func TestBadMagic(t *testing.T) {
	eachStyle(t, func(t *testing.T, style replyStyle) {
		h := newHouse(t, houseOptions{})
		other := styleExtended
		if style == styleExtended {
			other = styleStructured
		}
		for _, bad := range [][]byte{
			{0, 0, 0, 0}, []byte("GET / HTTP/1.1\r\nHost: disk\r\n\r\n"), make([]byte, 100), encodeHeader(other, header{}),
			{0x12, 0x56, 0x09, 0x53}, {0x25, 0x60, 0x95, 0x14}, encodeHeader(other, header{})[:5],
		} {
			w := h.dial(dialOptions{style: style})
			b, _ := w.request(CmdFlush, 0, 0, 0, nil)
			w.send(append(b, bad...))
			w.awaitAll()
			w.atEnd()
			end := h.closed()
			require.Equal(t, CauseProtocol, end.Cause)
			require.ErrorContains(t, end.Err, "magic")
			require.Equal(t, uint64(1), end.Requests)
		}
	})
}

// Goal: clients that know the block sizes are held to the minimum, others are helped (SZ-1, SZ-6, SZ-7, SZ-8, ERR-4, WR-2).
// Method: a disk with blocks of 4096 bytes; the same requests with and without INFO_BLOCK_SIZE, and by EXPORT_NAME.
func TestUnalignedRequests(t *testing.T) {
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{Limits: blockcore.Limits{Align: 4096}}, export: ExportOptions{MinBlock: 4096}})
	w := h.dial(dialOptions{style: styleStructured, contexts: []string{ContextAllocation}})
	require.Equal(t, uint32(4096), w.remote.MinBlock)
	judge(t, w, []verdictRow{
		{"SZ-7", CmdRead, 0, 1, 4096, EInval}, {"SZ-7", CmdRead, 0, 0, 4095, EInval}, {"SZ-7", CmdWrite, 0, 512, 512, EInval},
		{"SZ-7", CmdTrim, 0, 0, 512, EInval}, {"SZ-7", CmdWriteZeroes, 0, 0, 512, EInval}, {"SZ-7", CmdBlockStatus, 0, 512, 4096, EInval},
		{"ERR-5 range before alignment", CmdWrite, 0, mib, 511, ENoSpc},
	})
	require.NotContains(t, h.log.Text(), "write")
	chooses := h.dial(dialOptions{style: styleExtended, contexts: []string{ContextAllocation}})
	for _, c := range []struct {
		offset, length uint64
		want           Errno
	}{{0, 4096, 0}, {4096, 8192, 0}, {0, 512, EInval}, {512, 4096, EInval}} {
		payload := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, c.length), chooses.ids[0])
		if a := chooses.do(CmdBlockStatus, 0, c.offset, 0, payload); c.want == 0 {
			chooses.ok(a)
		} else {
			chooses.refused(c.want, a)
		}
	}
	for _, o := range []dialOptions{{unaware: true}, {old: true}, {unaware: true, style: styleStructured}} {
		w := h.dial(o)
		data := fill(5, 9000)
		w.write(4000, data)
		sameBytes(t, data, w.read(4000, 9000))
		w.ok(w.do(CmdWriteZeroes, 0, 5000, 100, nil))
		clear(data[1000:1100])
		sameBytes(t, data, w.read(4000, 9000))
		w.ok(w.do(CmdTrim, 0, 4001, 100, nil))
		w.ok(w.do(CmdCache, 0, 1, 1, nil))
		sameBytes(t, data, w.read(4000, 9000))
		w.disconnect()
	}
}

// Goal: the sizes that clients may rely on are told and kept (SZ-2, SZ-3, SZ-4, SZ-5, SZ-8, SZ-9, TF-1,
// TF-B4, TF-B9). Method: INFO_BLOCK_SIZE
// and flags of exports with several limits.
func TestAdvertisedSizes(t *testing.T) {
	for name, c := range map[string]struct {
		limits         blockcore.Limits
		features       blockcore.Features
		asked          uint32
		minimum, prefs uint32
		flags          TransmissionFlags
	}{
		"plain":  {blockcore.Limits{}, blockcore.Features{}, 0, 1, 4096, 0},
		"disk":   {blockcore.Limits{Align: 512}, blockcore.Features{Rotational: true}, 512, 512, 4096, FlagRotational},
		"helped": {blockcore.Limits{Align: 512}, blockcore.Features{}, 0, 1, 4096, 0},
		"flash":  {blockcore.Limits{Align: 4096, Preferred: 16384}, blockcore.Features{FastZero: true}, 4096, 4096, 16384, FlagSendFastZero},
		"coarse": {blockcore.Limits{}, blockcore.Features{}, 65536, 65536, 65536, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, houseOptions{export: ExportOptions{MinBlock: c.asked},
				disk: blocktest.FakeOptions{Limits: c.limits, Features: c.features}})
			w := h.dial(dialOptions{})
			require.Equal(t, []uint32{c.minimum, c.prefs, 32 << 20}, []uint32{w.remote.MinBlock, w.remote.PreferredBlock, w.remote.MaxPayload})
			always := FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagSendTrim | FlagSendWriteZeroes | FlagSendCache | FlagCanMultiConn
			require.Equal(t, always|c.flags, w.remote.Flags)
		})
	}
}
