package blocktest

import (
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: what stays of a disk that is resized is unchanged, and what is new reads as zeroes; method: a full disk is made
// longer and shorter, its contents compared each time. Who cannot be resized says ENOTSUP and stays as it was.
func testResize(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	resizer, ok := d.Driver.(blockcore.Resizer)
	if !ok || d.SizeFixed {
		return
	}
	m := newModel(d)
	size := d.Driver.Size()
	m.write(0, pattern(3, size), 0)
	unit := max(d.align(), 4096)
	for _, next := range []int64{size&^(unit-1) + unit, unit, 3 * unit, size&^(unit-1) + 16*unit, 2 * unit} {
		before := d.Driver.Size()
		err := ctx.Do(func(t *blockcore.Task) error { return resizer.Resize(t, next) })
		if errors.Is(err, syscall.ENOTSUP) {
			require.Equal(t, before, d.Driver.Size(), "a resize that failed changed the size")
			return
		}
		require.NoError(t, err)
		require.Equal(t, next, d.Driver.Size())
		bytes := make([]byte, next)
		copy(bytes, m.bytes)
		m.bytes = bytes
		m.checkAll()
		m.checkStatus(blockcore.Range{Length: next}, 1000)
		m.write(next-unit, pattern(uint64(next), unit), 0)
		m.checkAll()
	}
	d.flush()
	m.checkAll()
}

// Goal: a disk that can be extended becomes at least that long, never shorter, and keeps what it has, whoever else extends it at the same
// time; method: many at once, the contents compared. Who cannot says ENOSPC and stays as it was.
func testExtend(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) {
	d := openDisk(t, ctx, open)
	extender, ok := d.Driver.(blockcore.Extender)
	if !ok || d.SizeFixed {
		return
	}
	m := newModel(d)
	size := d.Driver.Size()
	m.write(0, pattern(5, size), 0)
	unit := max(d.align(), 4096)
	targets := []int64{5, 2, 9, 0, 7}
	done := make(chan error, len(targets))
	var longest int64
	for _, n := range targets {
		to := size&^(unit-1) + n*unit
		longest = max(longest, to)
		ctx.Post(func() {
			ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) { done <- extender.Extend(t, to) }))
		})
	}
	for range targets {
		err := <-done
		if errors.Is(err, syscall.ENOSPC) {
			require.Equal(t, size, d.Driver.Size(), "an extension that failed changed the size")
			return
		}
		require.NoError(t, err)
	}
	require.GreaterOrEqual(t, d.Driver.Size(), longest)
	m.bytes = append(m.bytes, make([]byte, d.Driver.Size()-size)...)
	m.checkAll()
	m.write(longest-unit, pattern(6, unit), 0)
	m.checkAll()
}
