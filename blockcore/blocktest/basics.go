package blocktest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: what a driver says of itself is possible; method: ask.
func testStatements(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	l := limitsOf(d.Driver)
	require.Positive(t, d.Driver.Size())
	require.Positive(t, l.Align)
	require.LessOrEqual(t, l.Align, int64(65536))
	require.Zero(t, l.Align&(l.Align-1), "a power of two")
	require.Zero(t, d.Driver.Size()%l.Align, "the size is made of whole blocks")
	if _, ok := d.Driver.(blockcore.Zeroer); !ok {
		require.False(t, featuresOf(d.Driver).FastZero)
	}
}

// boundaryRanges are the places where off-by-ones live.
func boundaryRanges(size, align int64) []blockcore.Range {
	unit := max(align, 1)
	page := max(align, 4096)
	all := []blockcore.Range{
		{Offset: 0, Length: unit},
		{Offset: unit, Length: unit},
		{Offset: size - unit, Length: unit},
		{Offset: 0, Length: size},
		{Offset: page - unit, Length: 2 * unit},
		{Offset: page, Length: page},
		{Offset: size - page, Length: page},
		{Offset: size/2&^(align-1) - unit, Length: page + 2*unit},
		{Offset: (size - 3*unit) &^ (align - 1), Length: 2 * unit},
	}
	var inside []blockcore.Range
	for _, r := range all {
		if r.Offset >= 0 && r.Within(size) && r.Aligned(align) {
			inside = append(inside, r)
		}
	}
	return inside
}

// Goal: the first, the last and the odd block are as good as the others; method: write each and read the whole disk.
func testBoundaries(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	m := newModel(d)
	m.checkAll()
	for i, r := range boundaryRanges(d.Driver.Size(), d.align()) {
		var flags blockcore.WriteFlags
		if i%2 == 1 {
			flags = blockcore.WriteFUA
		}
		m.write(r.Offset, pattern(uint64(i), r.Length), flags)
		m.check(r)
		m.checkAll()
	}
	d.flush()
	m.checkAll()
}

// Goal: a write leaves the caller's buffer alone and a read stays inside it; method: the driver gets the middle of
// a larger buffer.
func testBuffers(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	const page = 4096
	skip := int64(page)
	if d.align() == 1 {
		skip = 3 // and any address is good
	}
	n := max(d.align(), page)
	content := pattern(7, n)
	before := pattern(8, n+2*page)
	after := make([]byte, len(before))
	d.do(func(t *blockcore.Task) error {
		buf := t.Buffers().Get(len(before))
		defer t.Buffers().Put(buf)
		copy(buf, before)
		copy(buf[skip:], content)
		if err := d.Driver.(blockcore.Writer).WriteAt(t, buf[skip:skip+n], 0, 0); err != nil {
			return err
		}
		copy(after, buf)
		return nil
	})
	requireSame(t, content, after[skip:skip+n], 0)
	d.do(func(t *blockcore.Task) error {
		buf := t.Buffers().Get(len(before))
		defer t.Buffers().Put(buf)
		copy(buf, before)
		if err := d.Driver.ReadAt(t, buf[skip:skip+n], 0); err != nil {
			return err
		}
		copy(after, buf)
		return nil
	})
	requireSame(t, before[:skip], after[:skip], 0)
	requireSame(t, before[skip+n:], after[skip+n:], 0)
	if d.Forgets {
		content = make([]byte, n)
	}
	requireSame(t, content, after[skip:skip+n], 0)
}

// Goal: what was flushed is there after a reopen; method: write in each way, close, open, compare.
func testReopen(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	m := newModel(d)
	for i, r := range boundaryRanges(d.Driver.Size(), d.align()) {
		m.write(r.Offset, pattern(uint64(i+40), r.Length), blockcore.WriteFlags(i&1))
	}
	d.flush()
	if d.Reopen == nil {
		return
	}
	size := d.Driver.Size()
	d.close()
	d.Driver = d.Reopen()
	require.Equal(t, size, d.Driver.Size(), "the size survives")
	m.checkAll()
}
