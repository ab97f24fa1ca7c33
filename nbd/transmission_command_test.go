package nbd

import (
	"math"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// Goal: a READ brings each byte of its range once, whatever its size (RD-1, CH-4, CH-5, CH-9, CH-16, SR-1, SZ-5, SZ-9), in chunks of
// the negotiated kind of which the last one is DONE (SR-5, CH-2; the client of these tests checks it in all of them). Method:
// ranges around every limit inside the server, of a disk with data and holes, in each style and on each engine.
func TestReads(t *testing.T) {
	const size = payloadMax + 3*mib
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		h := newHouse(t, houseOptions{engine: engine, disk: blocktest.FakeOptions{SizeBytes: size}})
		w := h.dial(dialOptions{})
		for at := uint64(0); at+3*mib < size; at += 5 * mib {
			w.write(at+777, fill(byte(at/mib), 2*mib))
		}
		want := h.disk.Contents(blockcore.Range{Length: size})
		eachStyle(t, func(t *testing.T, style replyStyle) {
			w := h.dial(dialOptions{style: style})
			for _, length := range []uint64{1, 511, 4096, 4097, payloadInSlabMax - 1, payloadInSlabMax, sparseMin - 1, sparseMin, sparseMin + 1,
				slabSize - 1, slabSize, slabSize + 1, mib, payloadAdvertised, payloadAdvertised + 1, payloadMax} {
				offsets := []uint64{0, 1, 777, 2*mib + 770}
				if length > mib {
					offsets = offsets[2:3]
				}
				for _, offset := range offsets {
					sameBytes(t, want[offset:offset+length], w.read(offset, length))
				}
			}
			w.disconnect()
		})
	})
}

// Goal: DF means one piece, with holes as zeroes, and too much of it is EOVERFLOW without content (RD-2, CH-5, ERR-3). Method: a
// sparse range with and without DF, and one byte more than a payload may have.
func TestDontFragment(t *testing.T) {
	for _, style := range []replyStyle{styleStructured, styleExtended} {
		h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{SizeBytes: payloadMax}})
		w := h.dial(dialOptions{style: style})
		w.write(0, fill(1, 100))
		w.write(mib, fill(2, 100))
		free := w.ok(w.do(CmdRead, 0, 0, 2*mib, nil))
		require.Equal(t, []int{2, 2}, []int{free.pieces, free.holes})
		whole := w.ok(w.do(CmdRead, CmdFlagDF, 0, 2*mib, nil))
		require.Equal(t, []int{1, 0}, []int{whole.pieces, whole.holes})
		sameBytes(t, free.data, whole.data)
		w.ok(w.do(CmdRead, CmdFlagDF, 0, payloadAdvertised, nil))
		long := w.do(CmdRead, CmdFlagDF, 0, payloadAdvertised+1, nil)
		w.refused(EOverflow, long)
		require.Nil(t, long.data)
		w.alive()
	}
}

// Goal: zeroes are told as holes where that pays, in few chunks, at round places (RD-4, CH-5, CH-16). Method: reads of an
// empty disk, of one with a single byte set, and from an odd offset.
func TestSparseReads(t *testing.T) {
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{SizeBytes: 40 * mib}})
	w := h.dial(dialOptions{style: styleStructured})
	empty := w.ok(w.do(CmdRead, 0, 0, 32*mib, nil))
	require.Equal(t, []int{0, 1}, []int{empty.pieces, empty.holes})
	w.write(8*mib+5, []byte{1})
	one := w.ok(w.do(CmdRead, 0, 0, 32*mib, nil))
	require.Equal(t, []int{1, 2}, []int{one.pieces, one.holes})

	cookie := w.post(CmdRead, 0, 8*mib-99_999, 200_000, nil)
	p := w.pending[cookie]
	w.ok(w.await(cookie))
	require.Equal(t, []span{{8*mib - 99_999, 8 * mib}, {8 * mib, 8*mib + sparseUnit}, {8*mib + sparseUnit, 8*mib + 100_001}}, p.covered)
	small := w.ok(w.do(CmdRead, 0, 0, 512, nil))
	require.Equal(t, []int{1, 0}, []int{small.pieces, small.holes})
}

// Goal: a WRITE is applied before its reply, and durable before it only with FUA (WR-1, ORD-3). Method: the log of the disk.
func TestWrites(t *testing.T) {
	h := newHouse(t, houseOptions{})
	w := h.dial(dialOptions{})
	w.write(512, fill(1, 512))
	w.ok(w.do(CmdWrite, CmdFlagFUA, 1024, 0, fill(2, 512)))
	require.Equal(t, "fake: write [0x200, +0x200)\nfake: write [0x200, +0x200): ok\n"+
		"fake: write [0x400, +0x200) fua\nfake: write [0x400, +0x200) fua: ok\n", h.log.Take())
	sameBytes(t, fill(1, 512), h.disk.Contents(blockcore.Range{Offset: 512, Length: 512}))
	gate := blocktest.NewGate()
	h.disk.Add(blocktest.Rule{Op: blocktest.OpWrite, Gate: gate, Times: 1})
	cookie := w.post(CmdWrite, 0, 0, 0, fill(3, 512))
	gate.WaitHeld(1)
	sameBytes(t, make([]byte, 512), w.read(0, 512))
	require.Contains(t, w.pending, cookie, "no reply while it is held")
	gate.Open()
	w.ok(w.await(cookie))
	sameBytes(t, fill(3, 512), h.disk.Contents(blockcore.Range{Length: 512}))
}

// Goal: commands become what the specification says of them, and nothing else (WZ-1, WZ-2, WZ-4, TR-1, CA-1, FL-1, TF-B2,
// TF-B5, TF-B6, TF-B10). Method: one of
// each with each flag; the log of a disk that can zero fast.
func TestCommandsReachTheDisk(t *testing.T) {
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{Features: blockcore.Features{FastZero: true}}})
	w := h.dial(dialOptions{style: styleStructured, contexts: []string{ContextAllocation}})
	w.write(0, fill(1, 8192))
	h.log.Take()
	for _, c := range []struct {
		command Command
		flags   CommandFlags
		want    string
	}{
		{CmdWriteZeroes, 0, "zero [0x1000, +0x200) unmap"},
		{CmdWriteZeroes, CmdFlagNoHole, "zero [0x1000, +0x200)"},
		{CmdWriteZeroes, CmdFlagFUA, "zero [0x1000, +0x200) fua unmap"},
		{CmdWriteZeroes, CmdFlagFastZero, "zero [0x1000, +0x200) unmap fast"},
		{CmdWriteZeroes, CmdFlagFastZero | CmdFlagNoHole | CmdFlagFUA, "zero [0x1000, +0x200) fua fast"},
		{CmdTrim, 0, "discard [0x1000, +0x200)"},
		{CmdTrim, CmdFlagFUA, "discard [0x1000, +0x200); flush"},
		{CmdCache, 0, ""},
		{CmdFlush, 0, "flush"},
	} {
		w.ok(w.do(c.command, c.flags, 4096, 512, nil))
		var asked []string
		for line := range strings.Lines(h.log.Take()) {
			if line = strings.TrimSpace(line); !strings.HasSuffix(line, ": ok") {
				asked = append(asked, strings.TrimPrefix(line, "fake: "))
			}
		}
		require.Equal(t, c.want, strings.Join(asked, "; "), "%v %v", c.command, c.flags)
	}
	after := w.read(0, 8192)
	want := fill(1, 8192)
	clear(want[4096 : 4096+512])
	sameBytes(t, want, after)
}

// Goal: FAST_ZERO that is no faster says ENOTSUP and changes nothing; without the flag ENOTSUP never reaches a client (WZ-3, WZ-4,
// ERR-3). Method: a disk that announces fast zeroing and then refuses it; the block layer writes instead.
func TestFastZeroRefused(t *testing.T) {
	h := newHouse(t, houseOptions{disk: blocktest.FakeOptions{Features: blockcore.Features{FastZero: true}}})
	h.disk.Add(blocktest.Rule{Op: blocktest.OpZero, Err: syscall.ENOTSUP})
	w := h.dial(dialOptions{style: styleStructured})
	w.write(0, fill(1, 4096))
	h.log.Take()
	w.refused(ENotSup, w.do(CmdWriteZeroes, CmdFlagFastZero, 0, 4096, nil))
	require.NotContains(t, h.log.Take(), "write")
	sameBytes(t, fill(1, 4096), w.read(0, 4096))
	w.ok(w.do(CmdWriteZeroes, 0, 0, 4096, nil))
	sameBytes(t, make([]byte, 4096), w.read(0, 4096))
	h.disk.Add(blocktest.Rule{Op: blocktest.OpDiscard, Err: syscall.ENOTSUP})
	w.refused(EInval, w.do(CmdTrim, 0, 0, 4096, nil))
}

// Goal: the longest TRIM and WRITE_ZEROES a compact header has room for work as one request, and are not bounded by payload limits
// (TR-3, WZ-6, SZ-5). Method: a disk of 5 GiB that holds nothing but its log.
func TestLongRanges(t *testing.T) {
	d := &vastDisk{size: 5 << 30}
	h := newHouse(t, houseOptions{driver: d})
	w := h.dial(dialOptions{style: styleStructured, contexts: []string{ContextAllocation}})
	for _, length := range []uint64{4<<30 - 512, math.MaxUint32} {
		w.ok(w.do(CmdTrim, 0, 512, length, nil))
		require.Equal(t, blockcore.Range{Offset: 512, Length: int64(length)}, d.take())
		w.ok(w.do(CmdWriteZeroes, 0, 1024, length, nil))
		require.Equal(t, blockcore.Range{Offset: 1024, Length: int64(length)}, d.take())
		w.ok(w.do(CmdCache, 0, 0, length, nil))
	}
	// BS-8: the sum of what is told does not wrap.
	for _, flags := range []CommandFlags{0, CmdFlagReqOne} {
		a := w.ok(w.do(CmdBlockStatus, flags, 0, math.MaxUint32, nil))
		require.Equal(t, uint64(compactRunMax), a.status[w.ids[0]][0].length)
	}
	w.alive()
}

// vastDisk is larger than memory: it keeps nothing and says of all that it is data.
type vastDisk struct {
	// Immutable.
	size int64

	// Guarded by mu.
	mu   sync.Mutex
	last blockcore.Range // that was discarded or zeroed
}

func (d *vastDisk) Size() int64 { return d.size }

func (d *vastDisk) ReadAt(_ *blockcore.Task, p []byte, _ int64) error { clear(p); return nil }

func (d *vastDisk) WriteAt(*blockcore.Task, []byte, int64, blockcore.WriteFlags) error { return nil }

func (d *vastDisk) Close(*blockcore.Task) error { return nil }

func (d *vastDisk) Discard(_ *blockcore.Task, r blockcore.Range) error { return d.note(r) }

func (d *vastDisk) WriteZeroes(_ *blockcore.Task, r blockcore.Range, _ blockcore.ZeroFlags) error {
	return d.note(r)
}

func (d *vastDisk) note(r blockcore.Range) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = r
	return nil
}

// take returns the last range and forgets it.
func (d *vastDisk) take() blockcore.Range {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.last
	d.last = blockcore.Range{}
	return r
}

// Goal: NBD's contexts tell what the disk knows, one chunk each, merged and bounded (BS-1, BS-2, BS-3, BS-4, BS-5, CTX-1, CTX-2, CTX-3,
// CTX-6, CH-6, EXT-8). Method: a disk with data at known places; answers written out by hand, in both styles that have them.
func TestBlockStatus(t *testing.T) {
	for _, style := range []replyStyle{styleStructured, styleExtended} {
		h := newHouse(t, houseOptions{export: ExportOptions{AllocationDepth: true}})
		w := h.dial(dialOptions{style: style, contexts: []string{ContextAllocation, ContextAllocationDepth}})
		w.write(4096, fill(1, 4096))
		w.write(8192, fill(2, 512))
		allocation, depth := w.ids[0], w.ids[1]
		hole := uint64(StateHole | StateZero)
		a := w.ok(w.do(CmdBlockStatus, 0, 0, mib, nil))
		require.Equal(t, []run{{4096, hole}, {4608, 0}, {mib - 8704, hole}}, a.status[allocation])
		require.Equal(t, []run{{4096, 0}, {4608, 1}, {mib - 8704, 0}}, a.status[depth])
		a = w.ok(w.do(CmdBlockStatus, CmdFlagReqOne, 5000, 10_000, nil))
		require.Equal(t, []run{{3704, 0}}, a.status[allocation])
		require.Equal(t, []run{{3704, 1}}, a.status[depth])
		a = w.ok(w.do(CmdBlockStatus, 0, 8000, 700, nil))
		require.Equal(t, []run{{700, 0}}, a.status[allocation], "not past the end of the request")
		a = w.ok(w.do(CmdBlockStatus, 0, mib-1, 1, nil))
		require.Equal(t, []run{{1, hole}}, a.status[allocation])
		w.refused(EInval, w.do(CmdBlockStatus, 0, mib-1, 2, nil))
		w.refused(EInval, w.do(CmdBlockStatus, 0, 0, math.MaxUint32, nil))
		w.alive()
	}
}

// Goal: a map of many pieces is cut off where QEMU cuts it, and the client may ask on (BS-4, BS-3). Method: a disk of one piece more
// than that, asked until its end; one context of the two that have no difference to tell stays merged.
func TestBlockStatusOfManyPieces(t *testing.T) {
	d := &stripedDisk{stripes: statusExtentsMax + 5}
	h := newHouse(t, houseOptions{driver: d})
	for _, style := range []replyStyle{styleStructured, styleExtended} {
		w := h.dial(dialOptions{style: style, contexts: []string{ContextAllocation}})
		a := w.ok(w.do(CmdBlockStatus, 0, 0, uint64(d.Size()), nil))
		require.Len(t, a.status[w.ids[0]], statusExtentsMax)
		rest := uint64(d.Size()) - statusExtentsMax*512
		a = w.ok(w.do(CmdBlockStatus, 0, statusExtentsMax*512, rest, nil))
		require.Len(t, a.status[w.ids[0]], 5)
		w.disconnect()
	}
}

// stripedDisk is allocated in every second unit of 512 bytes.
type stripedDisk struct {
	// Immutable.
	stripes int64
}

func (d *stripedDisk) Size() int64                                                        { return d.stripes * 512 }
func (d *stripedDisk) ReadAt(_ *blockcore.Task, p []byte, _ int64) error                  { clear(p); return nil }
func (d *stripedDisk) WriteAt(*blockcore.Task, []byte, int64, blockcore.WriteFlags) error { return nil }
func (d *stripedDisk) Close(*blockcore.Task) error                                        { return nil }

func (d *stripedDisk) BlockStatus(_ *blockcore.Task, r blockcore.Range, exts []blockcore.Extent, max int) ([]blockcore.Extent, error) {
	for i := 0; i < max && r.Length > 0; i++ {
		e := blockcore.Extent{Length: min(512-r.Offset%512, r.Length), Depth: 1}
		if r.Offset/512%2 == 1 {
			e.Depth, e.Status = 0, blockcore.ExtentHole|blockcore.ExtentZero
		}
		exts = append(exts, e)
		r.Offset += e.Length
		r.Length -= e.Length
	}
	return exts, nil
}
