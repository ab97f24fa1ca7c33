package blocktest

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// allZeroFlags are all combinations that an Edge may pass, ZeroNoFallback apart.
var allZeroFlags = []blockcore.ZeroFlags{
	0, blockcore.ZeroFUA, blockcore.ZeroMayUnmap, blockcore.ZeroFUA | blockcore.ZeroMayUnmap,
}

// Goal: zeroed ranges read as zeroes and their neighbours stay; method: each range and flag on a full disk.
// With ZeroNoFallback a driver may refuse, with ENOTSUP and nothing changed.
func testZeroes(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	m := newModel(d)
	size := d.Driver.Size()
	for i, flags := range allZeroFlags {
		m.write(0, pattern(uint64(i), size), 0)
		for _, r := range boundaryRanges(size, d.align()) {
			m.zero(r, flags)
			m.checkAll()
			m.checkStatus(blockcore.Range{Length: size}, 1000)
		}
		m.checkAll()
	}
	m.write(0, pattern(99, size), 0)
	for i, r := range boundaryRanges(size, d.align()) {
		testFastZero(t, m, r, allZeroFlags[i%len(allZeroFlags)]|blockcore.ZeroNoFallback)
	}
}

func testFastZero(t *testing.T, m *model, r blockcore.Range, flags blockcore.ZeroFlags) {
	z, ok := m.d.Driver.(blockcore.Zeroer)
	if !ok {
		return
	}
	err := m.d.ctx.Do(func(t *blockcore.Task) error { return z.WriteZeroes(t, r, flags) })
	if err == nil {
		clear(m.slice(r))
		require.True(t, featuresOf(m.d.Driver).FastZero, "a fast zero worked that was not announced")
	} else {
		require.True(t, errors.Is(err, syscall.ENOTSUP), "got %v", err)
	}
	m.checkAll()
}

// Goal: a discard leaves old bytes or zeroes, and only inside the range; method: each range on a full disk.
func testDiscard(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	m := newModel(d)
	size := d.Driver.Size()
	for i, r := range boundaryRanges(size, d.align()) {
		m.write(0, pattern(uint64(i), size), 0)
		m.discard(r)
		m.checkAll()
		m.checkStatus(blockcore.Range{Length: size}, 1000)
		m.write(r.Offset, pattern(uint64(i+50), r.Length), 0)
		m.checkAll()
	}
}

// Goal: the map agrees with the contents wherever it is entered and however many extents are wanted; method: a striped
// disk, walked by each count of extents.
func testMap(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	m := newModel(d)
	size := d.Driver.Size()
	step := max(d.align(), 4096)
	for off := int64(0); off+step <= size; off += 3 * step {
		m.write(off, pattern(uint64(off), step), 0)
	}
	m.zero(blockcore.Range{Offset: 0, Length: step}, blockcore.ZeroMayUnmap)
	for _, max := range []int{1, 2, 3, 7, 1000} {
		t.Run(fmt.Sprintf("max %d", max), func(t *testing.T) { walkMap(m, max, size) })
	}
	for off := int64(0); off < size; off += max(d.align(), size/64&^(d.align()-1)) {
		m.checkStatus(blockcore.Range{Offset: off, Length: min(d.align(), size-off)}, 1)
		m.checkStatus(blockcore.Range{Offset: off, Length: size - off}, 2)
	}
}

func walkMap(m *model, max int, size int64) {
	for off := int64(0); off < size; {
		for _, e := range m.checkStatus(blockcore.Range{Offset: off, Length: size - off}, max) {
			off += e.Length
		}
	}
}
