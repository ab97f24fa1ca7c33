package nbd

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/blockcore/blocktest"
)

// cachedDisk is a Fake whose contents, at a moment, lie in a file in memory as well.
type cachedDisk struct {
	*blocktest.Fake
	file *os.File
}

// CachedFile implements blockcore.CacheTeller.
func (d cachedDisk) CachedFile(r blockcore.Range) (fd int, off int64, ok bool) {
	return int(d.file.Fd()), r.Offset, true
}

func newCachedDisk(t *testing.T, data []byte) cachedDisk {
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
	require.NoError(t, err)
	d := cachedDisk{blocktest.NewFake(blocktest.FakeOptions{SizeBytes: int64(len(data))}), os.NewFile(uintptr(fd), "disk")}
	t.Cleanup(func() { d.file.Close() })
	_, err = d.file.Write(data)
	require.NoError(t, err)
	return d
}

// Goal: a READ answered out of the page cache is the same on the wire as any other (RD-1, RD-2, CH-4, CH-9, SR-1). Method: a disk that has
// a file in memory; all lengths and both kinds of headers, with room in the socket and without, behind and before other requests. What
// does not fit at once is read from the disk, whose contents are made the same first.
func TestReadsFromCache(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		data := fill(1, 40*mib)
		d := newCachedDisk(t, data)
		h := newHouse(t, houseOptions{engine: engine, driver: d})
		writer := h.dial(dialOptions{})
		writer.write(0, data)
		eachStyle(t, func(t *testing.T, style replyStyle) {
			w := h.dial(dialOptions{style: style})
			for _, length := range []uint64{sendfileMin - 1, sendfileMin, mib, payloadAdvertised, payloadAdvertised + 1} {
				sameBytes(t, data[777:777+length], w.read(777, length))
			}
			if style != styleSimple {
				sameBytes(t, data[1:1+mib], w.ok(w.do(CmdRead, CmdFlagDF, 1, mib, nil)).data)
				w.refused(EOverflow, w.do(CmdRead, CmdFlagDF, 0, payloadAdvertised+1, nil))
			}
			h.narrow(h.dialed)
			for i := range uint64(20) {
				w.post(CmdRead, 0, i*1000, mib, nil)
				w.post(CmdRead, 0, i*1000, 100, nil)
				w.post(CmdFlush, 0, 0, 0, nil)
			}
			for _, a := range w.awaitAll() {
				w.ok(a)
				sameBytes(t, data[a.header.offset:a.header.offset+a.header.length], append([]byte{}, a.data...))
			}
			w.disconnect()
		})
	})
}

// Goal: a READ whose second half fails when its first has left is still answered, with the error behind the data and at its place; only a
// simple reply has no way to say so, and the connection ends (SR-3, CH-8, CH-10, CH-11, CH-12). Method: a narrow socket, the rest of the
// READ held in the disk, which then fails; another request behind it; in each style.
func TestReadsFromCacheThatFail(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		eachStyle(t, func(t *testing.T, style replyStyle) {
			d := newCachedDisk(t, fill(1, 8*mib))
			h := newHouse(t, houseOptions{engine: engine, driver: d})
			gate := blocktest.NewGate()
			d.Add(blocktest.Rule{Op: blocktest.OpRead, Gate: gate, Err: unix.EIO, Times: 1})
			w := h.dial(dialOptions{style: style})
			h.narrow(1)
			bad := w.post(CmdRead, 0, 0, 8*mib, nil)
			good := w.post(CmdFlush, 0, 0, 0, nil)
			gate.WaitHeld(1)
			gate.Open()
			if style == styleSimple {
				_, err := w.next()
				for err == nil {
					_, err = w.next()
				}
				require.ErrorIs(t, err, errTruncated)
				require.Equal(t, CauseReset, h.closed().Cause)
				return
			}
			all := w.awaitAll()
			w.ok(all[good])
			w.refused(EIO, all[bad])
			require.Len(t, all[bad].offsets, 1)
			require.Positive(t, all[bad].offsets[0])
			w.alive()
			w.disconnect()
			require.Equal(t, uint64(1), h.closed().Failed)
		})
	})
}

// Goal: a client may go while its answer is half in the socket and half to be read (DI-2). Method: a narrow socket, the rest of the READ held in
// the disk; the client goes.
func TestReadsFromCacheCutShort(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine blockcore.EngineKind) {
		d := newCachedDisk(t, fill(1, 8*mib))
		h := newHouse(t, houseOptions{engine: engine, driver: d})
		gate := blocktest.NewGate()
		d.Add(blocktest.Rule{Op: blocktest.OpRead, Gate: gate})
		w := h.dial(dialOptions{style: styleStructured})
		h.narrow(1)
		w.post(CmdRead, 0, 0, 8*mib, nil)
		w.post(CmdFlush, 0, 0, 0, nil)
		gate.WaitHeld(1)
		w.conn.Close()
		h.until("the end was seen", func() bool { return h.conn(0).ended })
		gate.Open()
		require.Equal(t, CauseReset, h.closed().Cause)
	})
}
