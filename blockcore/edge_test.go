package blockcore

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// boundless is a driver of any size that stores nothing and notes the ranges it is given.
type boundless struct {
	size   int64
	limits Limits
	calls  []Range
}

func (b *boundless) Size() int64                                     { return b.size }
func (b *boundless) Limits() Limits                                  { return b.limits }
func (b *boundless) Close(*Task) error                               { return nil }
func (b *boundless) note(r Range) error                              { b.calls = append(b.calls, r); return nil }
func (b *boundless) WriteZeroes(t *Task, r Range, _ ZeroFlags) error { return b.note(r) }
func (b *boundless) Discard(t *Task, r Range) error                  { return b.note(r) }
func (b *boundless) Prefetch(t *Task, r Range) error                 { return b.note(r) }

func (b *boundless) ReadAt(t *Task, p []byte, off int64) error {
	return b.note(Range{off, int64(len(p))})
}

func (b *boundless) WriteAt(t *Task, p []byte, off int64, _ WriteFlags) error {
	return b.note(Range{off, int64(len(p))})
}

func (b *boundless) BlockStatus(t *Task, r Range, exts []Extent, _ int) ([]Extent, error) {
	return append(exts, Extent{Length: r.Length}), b.note(r)
}

// edgeOps are all requests that have a range, on a buffer where they need one.
var edgeOps = []struct {
	name   string
	past   syscall.Errno // when the range ends behind the node
	writes bool
	call   func(t *Task, e *Edge, r Range) error
}{
	{"read", syscall.EINVAL, false, func(t *Task, e *Edge, r Range) error {
		return withBuffer(t, r, func(p []byte) error { return e.Read(t, p, r.Offset) })
	}},
	{"write", syscall.ENOSPC, true, func(t *Task, e *Edge, r Range) error {
		return withBuffer(t, r, func(p []byte) error { clear(p); return e.Write(t, p, r.Offset, 0) })
	}},
	{"write zeroes", syscall.ENOSPC, true, func(t *Task, e *Edge, r Range) error { return e.WriteZeroes(t, r, 0) }},
	{"discard", syscall.EINVAL, true, func(t *Task, e *Edge, r Range) error { return e.Discard(t, r, false) }},
	{"prefetch", syscall.EINVAL, false, func(t *Task, e *Edge, r Range) error { return e.Prefetch(t, r) }},
	{"block status", syscall.EINVAL, false, func(t *Task, e *Edge, r Range) error {
		_, err := e.BlockStatus(t, r, nil, 4)
		return err
	}},
}

func withBuffer(t *Task, r Range, fn func([]byte) error) error {
	p := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(p)
	return fn(p)
}

func TestEdgeRefusesWhatIsOutside(t *testing.T) {
	// A range that is not inside of the node is refused with the errno of its request, without overflow and before the driver
	// sees it, and the last bytes of the largest node are within reach: a table of ranges for each request, at three alignments.
	const most = math.MaxInt64
	c := newTestContext(t, ContextOptions{})
	for _, align := range []int64{1, 512, 4096} {
		size := most &^ (align - 1)
		d := &boundless{size: size, limits: Limits{Align: align}}
		r := attach(t, c, d)
		for _, op := range edgeOps {
			for _, outside := range []Range{{size, 1}, {size - 1, 2}, {most, 1}, {most, 4096}, {-1, 1}, {math.MinInt64, 1}, {size - 511, 512}} {
				d.calls = nil
				err := c.Do(func(t *Task) error { return op.call(t, r.Edge(), outside) })
				require.ErrorIs(t, err, op.past, "%s of %v, alignment %d", op.name, outside, align)
				require.Empty(t, d.calls)
			}
			for _, inside := range []Range{{size - 1, 1}, {size - 4097, 4097}, {0, 1}} {
				d.calls = nil
				do(t, c, func(t *Task) error { return op.call(t, r.Edge(), inside) })
				for _, seen := range d.calls {
					require.True(t, seen.Within(size) && seen.Aligned(align), "%s of %v gave %v", op.name, inside, seen)
				}
			}
			if op.name == "write zeroes" || op.name == "discard" {
				d.calls = nil
				do(t, c, func(t *Task) error { return op.call(t, r.Edge(), Range{0, size}) })
				require.Equal(t, []Range{{0, size}}, d.calls)
				err := c.Do(func(t *Task) error { return op.call(t, r.Edge(), Range{1, most}) })
				require.ErrorIs(t, err, op.past)
			}
		}
		require.Zero(t, r.Node().InFlight())
	}
}

func TestLargeRequestsAtTheEndOfTheLargestNode(t *testing.T) {
	// A request is cut into pieces without overflow at the highest offsets too: unaligned reads and writes of three pieces, none
	// of which may be longer than the driver takes.
	const align, limit = 512, 4096
	c := newTestContext(t, ContextOptions{})
	d := &boundless{size: math.MaxInt64 &^ (align - 1), limits: Limits{Align: align, TransferMax: limit}}
	r := attach(t, c, d)
	for _, op := range edgeOps[:2] {
		for _, off := range []int64{d.size - 3*limit + 1, d.size - 3*limit - 1} {
			d.calls = nil
			want := Range{off, 3*limit - 1}
			do(t, c, func(t *Task) error { return op.call(t, r.Edge(), want) })
			require.NotEmpty(t, d.calls)
			for _, seen := range d.calls {
				require.True(t, seen.Within(d.size) && seen.Aligned(align) && seen.Length <= limit, "%s of %v", op.name, seen)
			}
		}
	}
}

func TestEdgePermissions(t *testing.T) {
	// Nothing is changed without the right to: requests that write meet EPERM where the Root did not ask for writing, or where the driver
	// has no Writer; a Root that asks is refused where the driver is read-only.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(4096, Limits{Align: 1})
	m.log = true
	for _, d := range []Driver{m, bare{m}} {
		g := NewGraph()
		n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: d})
		require.NoError(t, err)
		r, err := g.NewRoot(n, RootOptions{Name: "reader"})
		require.NoError(t, err)
		for _, op := range edgeOps {
			m.calls = nil
			err := c.Do(func(t *Task) error { return op.call(t, r.Edge(), Range{0, 512}) })
			if !op.writes {
				require.NoError(t, err, op.name)
				continue
			}
			require.ErrorIs(t, err, syscall.EPERM, op.name)
			require.ErrorContains(t, err, op.name+" to node disk")
			require.Empty(t, m.calls)
		}
		require.Zero(t, n.InFlight())
		r.Close()
	}
	m.features.ReadOnly = true
	for _, d := range []Driver{m, bare{m}} {
		g := NewGraph()
		n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: d})
		require.NoError(t, err)
		require.False(t, n.Writable())
		_, err = g.NewRoot(n, RootOptions{Name: "writer", Writable: true})
		require.EqualError(t, err, "Cannot export read-only node as writable: node disk")
		require.NoError(t, g.RemoveNode(n))
	}
}

func TestDriverDefaults(t *testing.T) {
	// A driver that can only read and write gets the stated default of everything else: zeroes are written as data, unless that is
	// forbidden, a discard changes nothing, the status is one extent of data, a flush and a prefetch succeed.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(3<<20, Limits{Align: 512, TransferMax: 512 << 10})
	r := attach(t, c, plain{bare{m}})
	e := r.Edge()
	fill(m.data, 1)
	m.log = true
	do(t, c, func(t *Task) error {
		exts, err := e.BlockStatus(t, Range{100, 1000}, nil, 4)
		if len(exts) != 1 || exts[0] != (Extent{Length: 1000, Depth: 1}) {
			err = errors.Join(err, fmt.Errorf("status is %v", exts))
		}
		return errors.Join(err, e.Flush(t), e.Prefetch(t, Range{0, 1000}), e.Discard(t, Range{0, 4096}, true))
	})
	require.Empty(t, m.calls)
	err := c.Do(func(t *Task) error { return e.WriteZeroes(t, Range{0, 4096}, ZeroNoFallback) })
	require.ErrorIs(t, err, syscall.ENOTSUP)
	require.Empty(t, m.calls)
	do(t, c, func(t *Task) error { return e.WriteZeroes(t, Range{512, 1536 << 10}, ZeroFUA) })
	require.Equal(t, []string{"write fua 512+524288", "write fua 524800+524288", "write fua 1049088+524288"}, m.calls)
	for i, b := range m.data {
		if zero := i >= 512 && i < 512+1536<<10; zero != (b == 0) {
			require.Fail(t, "wrong byte", "%d at %d", b, i)
		}
	}
	require.NoError(t, m.broken)
}

func TestZeroesWithoutFallback(t *testing.T) {
	// ZeroNoFallback fails with ENOTSUP and changes nothing where the driver can do no better than write, and without the flag the zeroes are
	// written: a driver that refuses, aligned and unaligned ranges that hold a whole block.
	c := newTestContext(t, ContextOptions{})
	for _, align := range []int64{1, 512, 4096} {
		m := newMemory(64<<10, Limits{Align: align})
		m.fail = func(op string) error {
			if op == "zero" {
				return fmt.Errorf("zero: %w", syscall.ENOTSUP)
			}
			return nil
		}
		r := attach(t, c, m)
		fill(m.data, 1)
		before := append([]byte(nil), m.data...)
		for _, z := range []Range{{0, 64 << 10}, {4096, 8192}, {1, 20_000}, {4095, 4098}} {
			err := c.Do(func(t *Task) error { return r.Edge().WriteZeroes(t, z, ZeroNoFallback) })
			require.ErrorIs(t, err, syscall.ENOTSUP)
			require.Equal(t, before, m.data)
			do(t, c, func(t *Task) error { return r.Edge().WriteZeroes(t, z, ZeroMayUnmap) })
			want := append([]byte(nil), before...)
			clear(want[z.Offset:z.End()])
			require.Equal(t, want, m.data)
			copy(m.data, before)
		}
		require.NoError(t, m.broken)
	}
}

func TestDiscardIsRoundedInwards(t *testing.T) {
	// A discard reaches the driver for whole blocks only, and is durable on return where that is asked for: a table of ranges on blocks
	// of 512 bytes, with the calls that the driver must see.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(4096, Limits{Align: 512})
	m.log = true
	r := attach(t, c, m)
	table := []struct {
		r    Range
		fua  bool
		want []string
	}{
		{Range{0, 512}, false, []string{"discard 0+512"}},
		{Range{1, 1023}, false, []string{"discard 512+512"}},
		{Range{511, 1026}, true, []string{"discard 512+1024", "flush 0+0"}},
		{Range{1, 1022}, false, nil},
		{Range{513, 10}, true, []string{"flush 0+0"}},
		{Range{4096, 0}, false, nil},
	}
	for _, row := range table {
		m.calls = nil
		do(t, c, func(t *Task) error { return r.Edge().Discard(t, row.r, row.fua) })
		require.Equal(t, row.want, m.calls, "%v", row.r)
	}
}

func TestTransfersAreSplit(t *testing.T) {
	// Requests longer than the driver takes reach it in pieces, in order, with the flags of the whole, and unaligned ones with their ends read first:
	// the calls for a driver of blocks of 512 bytes that takes 1024.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(16<<10, Limits{Align: 512, TransferMax: 1024})
	m.log = true
	r := attach(t, c, m)
	table := []struct {
		name string
		call func(t *Task, e *Edge) error
		want []string
	}{
		{
			"aligned read",
			func(t *Task, e *Edge) error { return edgeOps[0].call(t, e, Range{512, 2560}) },
			[]string{"read 512+1024", "read 1536+1024", "read 2560+512"},
		},
		{
			"unaligned read",
			func(t *Task, e *Edge) error { return edgeOps[0].call(t, e, Range{500, 2000}) },
			[]string{"read 0+1024", "read 1024+1024", "read 2048+512"},
		},
		{
			"aligned write",
			func(t *Task, e *Edge) error { return edgeOps[1].call(t, e, Range{0, 2048}) },
			[]string{"write 0+1024", "write 1024+1024"},
		},
		{
			"write inside of a block",
			func(t *Task, e *Edge) error { return edgeOps[1].call(t, e, Range{600, 100}) },
			[]string{"read 512+512", "write 512+512"},
		},
		{
			"unaligned write",
			func(t *Task, e *Edge) error { return edgeOps[1].call(t, e, Range{500, 2000}) },
			[]string{"read 0+512", "write 0+1024", "write 1024+1024", "read 2048+512", "write 2048+512"},
		},
		{
			"write with two unaligned ends",
			func(t *Task, e *Edge) error { return edgeOps[1].call(t, e, Range{500, 100}) },
			[]string{"read 0+512", "read 512+512", "write 0+1024"},
		},
		{
			"aligned write from an odd address",
			func(t *Task, e *Edge) error {
				return withBuffer(t, Range{0, 1025}, func(p []byte) error { clear(p); return e.Write(t, p[1:], 512, WriteFUA) })
			},
			[]string{"write fua 512+1024"},
		},
		{
			"unaligned zeroes",
			func(t *Task, e *Edge) error { return e.WriteZeroes(t, Range{500, 1100}, ZeroFUA) },
			[]string{"zero 512+1024", "read 0+512", "write fua 0+512", "read 1536+512", "write fua 1536+512"},
		},
		{"zeroes of nothing", func(t *Task, e *Edge) error { return e.WriteZeroes(t, Range{500, 0}, 0) }, nil},
		{"write of nothing", func(t *Task, e *Edge) error { return e.Write(t, nil, 500, 0) }, nil},
		{"read of nothing", func(t *Task, e *Edge) error { return e.Read(t, nil, 500) }, nil},
	}
	for _, row := range table {
		m.calls = nil
		do(t, c, func(t *Task) error { return row.call(t, r.Edge()) })
		require.Equal(t, row.want, m.calls, row.name)
	}
	require.NoError(t, m.broken)
}

func TestErrorsLeaveNothingBehind_T_X7(t *testing.T) {
	// A request that fails at any of its steps leaves the in-flight count at 0, no range locked and no buffer lent, and the next one
	// succeeds: each request, unaligned, meets EIO at its first call of the driver, its second and so on until it gets through.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(64<<10, Limits{Align: 512, TransferMax: 4096})
	r := attach(t, c, m)
	n := r.Node()
	failed := map[string]int{}
	for _, op := range edgeOps {
		for failAt := 1; ; failAt++ {
			calls := 0
			m.fail = func(string) error {
				if calls++; calls == failAt {
					return fmt.Errorf("disk: %w", syscall.EIO)
				}
				return nil
			}
			err := c.Do(func(t *Task) error { return op.call(t, r.Edge(), Range{700, 9000}) })
			onLoop(t, c, func() {
				if n.InFlight() != 0 || len(n.writes.held) != 0 {
					t.Errorf("%s: %d in flight, %d ranges locked", op.name, n.InFlight(), len(n.writes.held))
				}
			})
			if calls < failAt {
				require.NoError(t, err)
				break
			}
			require.ErrorIs(t, err, syscall.EIO)
			failed[op.name]++
		}
	}
	require.Equal(t, map[string]int{"read": 3, "write": 5, "write zeroes": 5, "discard": 1, "block status": 1}, failed)
	require.NoError(t, m.broken)
}

func TestFlushErrors(t *testing.T) {
	// The error of a flush is that of the request that needed it, and counts come back to 0: a flush and a discard that
	// must be durable on a driver whose flush fails.
	c := newTestContext(t, ContextOptions{})
	m := newMemory(4096, Limits{Align: 1})
	m.fail = func(op string) error {
		if op == "flush" {
			return syscall.EIO
		}
		return nil
	}
	r := attach(t, c, m)
	require.ErrorIs(t, c.Do(func(t *Task) error { return r.Edge().Flush(t) }), syscall.EIO)
	require.ErrorIs(t, c.Do(func(t *Task) error { return r.Edge().Discard(t, Range{0, 512}, true) }), syscall.EIO)
	do(t, c, func(t *Task) error { return r.Edge().Discard(t, Range{0, 512}, false) })
	require.Zero(t, r.Node().InFlight())
}
