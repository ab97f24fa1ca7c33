package nbd

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// bitmapOf returns a bitmap of a disk, with a granularity of 512 bytes.
func bitmapOf(t *testing.T, sizeBytes int64) (*blockcore.Bitmaps, *blockcore.Bitmap) {
	t.Helper()
	l := blockcore.NewBitmaps(func() int64 { return sizeBytes })
	b, err := l.Add("b", 9, blockcore.BitmapState{Enabled: true})
	require.NoError(t, err)
	return l, b
}

// Goal: the context of a bitmap tells what is marked at the moment, merged and bounded, beside other contexts, and the bitmap stays as it is while it is
// offered (CTX-5, CTX-9). Method: marks by hand, answers written out, in both styles that have them.
func TestBitmapStatus(t *testing.T) {
	for _, style := range []replyStyle{styleStructured, styleExtended} {
		l, b := bitmapOf(t, mib-1024)
		h := newHouse(t, houseOptions{export: ExportOptions{Bitmaps: []*blockcore.Bitmap{b, b}}})
		require.Equal(t, []string{ContextAllocation, "qemu:dirty-bitmap:b"}, h.export.info().Contexts)
		w := h.dial(dialOptions{style: style, contexts: []string{ContextAllocation, "qemu:dirty-bitmap:b"}})
		l.Mark(blockcore.Range{Offset: 1000, Length: 600})
		l.Mark(blockcore.Range{Offset: 2048, Length: 1})
		a := w.ok(w.do(CmdBlockStatus, 0, 0, mib, nil))
		require.Equal(t, []run{{512, 0}, {2048, 1}, {mib - 2560, 0}}, a.status[w.ids[1]])
		require.Equal(t, []run{{mib, uint64(StateHole | StateZero)}}, a.status[w.ids[0]])
		a = w.ok(w.do(CmdBlockStatus, CmdFlagReqOne, 600, 5000, nil))
		require.Equal(t, []run{{1960, 1}}, a.status[w.ids[1]])
		l.Mark(blockcore.Range{Offset: mib - 1536, Length: 512}) // up to its end, which is before that of the disk
		a = w.ok(w.do(CmdBlockStatus, 0, mib-2000, 2000, nil))
		require.Equal(t, []run{{464, 0}, {512, 1}, {1024, 0}}, a.status[w.ids[1]])
		_, _, err := b.Clear()
		require.ErrorAs(t, err, new(*blockcore.BitmapBusy))
		require.ErrorAs(t, b.Remove(), new(*blockcore.BitmapBusy))
		w.alive()
		w.disconnect()
		require.NoError(t, h.server.RemoveExport(t.Context(), h.export, FarewellRestart))
		require.NoError(t, b.Remove())
	}
}

// Goal: a map of many pieces is cut off where other maps are, and the client may ask on. Method: a bitmap marked in every second granule, one piece more
// than that.
func TestBitmapStatusOfManyPieces(t *testing.T) {
	d := &stripedDisk{stripes: statusExtentsMax + 5}
	l, b := bitmapOf(t, d.Size())
	for at := int64(0); at < d.Size(); at += 1024 {
		l.Mark(blockcore.Range{Offset: at, Length: 512})
	}
	h := newHouse(t, houseOptions{driver: d, export: ExportOptions{Bitmaps: []*blockcore.Bitmap{b}}})
	w := h.dial(dialOptions{style: styleStructured, contexts: []string{"qemu:dirty-bitmap:b"}})
	a := w.ok(w.do(CmdBlockStatus, 0, 0, uint64(d.Size()), nil))
	require.Len(t, a.status[w.ids[0]], statusExtentsMax)
	a = w.ok(w.do(CmdBlockStatus, 0, statusExtentsMax*512, uint64(d.Size())-statusExtentsMax*512, nil))
	require.Equal(t, []run{{512, 1}, {512, 0}, {512, 1}, {512, 0}, {512, 1}}, a.status[w.ids[0]])
}

// Goal: clients that come to another export of the same name without the bitmap miss no change, and the bitmap is free as soon as the old export has given up
// its node. Method: a pause; the bitmap is taken by an export of its own; the next export has none.
func TestBitmapOfAPausedExport(t *testing.T) {
	_, b := bitmapOf(t, mib)
	h := newHouse(t, houseOptions{export: ExportOptions{Bitmaps: []*blockcore.Bitmap{b}}})
	w := h.dial(dialOptions{style: styleStructured, contexts: []string{"qemu:dirty-bitmap:b"}})
	a := w.ok(w.do(CmdBlockStatus, 0, 0, mib, nil))
	require.Equal(t, []run{{mib, 0}}, a.status[w.ids[0]])
	h.pauseExport(time.Minute)
	require.NoError(t, b.Acquire())
	_, err := h.next(h.ctx, ExportOptions{Writable: true})
	require.NoError(t, err)
	a = w.ok(w.do(CmdBlockStatus, 0, 0, mib, nil))
	require.Equal(t, []run{{mib, stateDirty}}, a.status[w.ids[0]])
}
