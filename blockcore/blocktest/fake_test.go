package blocktest

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Goal: the fake disk itself is a correct driver; method: the suite, for each kind of alignment.
func TestFakeConforms(t *testing.T) {
	for _, c := range []struct {
		name string
		o    FakeOptions
	}{
		{"bytes", FakeOptions{SizeBytes: 200<<10 + 77, Features: blockcore.Features{FastZero: true}}},
		{"sectors", FakeOptions{SizeBytes: 256 << 10, Limits: blockcore.Limits{Align: 512}}},
		{"pages", FakeOptions{SizeBytes: 256 << 10, Limits: blockcore.Limits{Align: 4096}, Features: blockcore.Features{FastZero: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			TestDriver(t, func(*testing.T) Subject {
				f := NewFake(c.o)
				return Subject{Driver: f, Reopen: func() blockcore.Driver { return f.Reopen() }}
			})
		})
	}
}

// Goal: rules hit the requests they describe, in order, and the log tells the story; method: a script of requests against
// one rule of each kind, and its golden transcript.
func TestFakeRules(t *testing.T) {
	ctx := NewContext(t, blockcore.EngineThreads)
	log := &Log{}
	f := NewFake(FakeOptions{Name: "disk", Log: log})
	f.Add(Rule{Op: OpWrite, Range: blockcore.Range{Offset: 4096, Length: 1}, Skip: 1, Times: 1, Err: syscall.ENOSPC})
	f.Add(Rule{Op: OpFlush, Times: 1, Err: syscall.EIO})
	f.Add(Rule{Op: OpZero, Times: 1, Err: syscall.EIO, After: true})
	d := &disk{t: t, ctx: ctx, Subject: Subject{Driver: f}}
	one := []byte{1}
	d.write(4096, one, 0)
	require.ErrorIs(t, ctx.Do(func(t *blockcore.Task) error { return writeFrom(t, f, 4096, []byte{2}, blockcore.WriteFUA) }), syscall.ENOSPC)
	require.Equal(t, one, d.read(4096, 1))
	require.ErrorIs(t, ctx.Do(f.Flush), syscall.EIO)
	d.flush()
	zero := blockcore.Range{Offset: 4096, Length: 512}
	require.ErrorIs(t, ctx.Do(func(t *blockcore.Task) error { return f.WriteZeroes(t, zero, blockcore.ZeroMayUnmap) }), syscall.EIO)
	require.Equal(t, []byte{0}, f.Contents(blockcore.Range{Offset: 4096, Length: 1}))
	d.close()
	require.ErrorIs(t, ctx.Do(f.Flush), syscall.EBADF)
	require.Equal(t, `disk: write [0x1000, +0x1)
disk: write [0x1000, +0x1): ok
disk: write [0x1000, +0x1) fua
disk: write [0x1000, +0x1) fua: ENOSPC
disk: read [0x1000, +0x1)
disk: read [0x1000, +0x1): ok
disk: flush
disk: flush: EIO
disk: flush
disk: flush: ok
disk: zero [0x1000, +0x200) unmap
disk: zero [0x1000, +0x200) unmap: EIO
disk: close
disk: close: ok
disk: flush
disk: flush: EBADF
`, log.Take())
	require.Empty(t, log.Text())
}

// Goal: a gate holds requests in order and lets go as many as it is told; method: three held writes, released one, then
// all, with their effect looked at in between.
func TestFakeGate(t *testing.T) {
	ctx := NewContext(t, blockcore.EngineThreads)
	f := NewFake(FakeOptions{})
	gate := NewGate()
	f.Add(Rule{Op: OpWrite, Gate: gate})
	done := make(chan int64, 3)
	ctx.Post(func() {
		for i := range int64(3) {
			ctx.Spawn(blockcore.BodyFunc(func(t *blockcore.Task) {
				if writeFrom(t, f, i, []byte{byte(i + 1)}, 0) == nil {
					done <- i
				}
			}))
		}
	})
	gate.WaitHeld(3)
	require.Equal(t, 3, f.Active())
	require.Equal(t, []byte{0, 0, 0}, f.Contents(blockcore.Range{Length: 3}))
	gate.Release(1)
	require.Equal(t, int64(0), <-done)
	require.Equal(t, []byte{1, 0, 0}, f.Contents(blockcore.Range{Length: 3}))
	require.Equal(t, 2, gate.Held())
	gate.Open()
	require.ElementsMatch(t, []int64{1, 2}, []int64{<-done, <-done})
	require.Equal(t, []byte{1, 2, 3}, f.Contents(blockcore.Range{Length: 3}))
	require.NoError(t, ctx.Do(func(t *blockcore.Task) error { return writeFrom(t, f, 9, []byte{9}, 0) }))
	require.Zero(t, f.Active())
}

// Goal: a bare driver has no optional interface; method: ask for each.
func TestBare(t *testing.T) {
	d := Bare(NewFake(FakeOptions{}))
	_, writer := d.(blockcore.Writer)
	_, flusher := d.(blockcore.Flusher)
	_, zeroer := d.(blockcore.Zeroer)
	_, limiter := d.(blockcore.Limiter)
	require.False(t, writer || flusher || zeroer || limiter)
}

// Goal: a fake on top of another one is a correct driver, and what it allocates is its own; method: the suite over an empty backing
// disk, and a script over a full one.
func TestFakeOverBacking(t *testing.T) {
	withBacking := func(t *testing.T, g *blockcore.Graph, bottom *blockcore.Node) *blockcore.Node {
		n, err := g.AddNode(blockcore.NodeOptions{
			Name: "overlay", Driver: NewFake(FakeOptions{SizeBytes: bottom.Size() + 1000}),
			Children: []blockcore.ChildOptions{{Role: blockcore.RoleBacking, Node: bottom}},
		})
		require.NoError(t, err)
		return n
	}
	TestStack(t, func(*testing.T) Subject { return Subject{Driver: NewFake(FakeOptions{SizeBytes: 100<<10 + 7})} }, withBacking)

	ctx := NewContext(t, blockcore.EngineThreads)
	base := NewFake(FakeOptions{SizeBytes: 4096})
	below := &disk{t: t, ctx: ctx, Subject: Subject{Driver: base}}
	below.write(0, pattern(1, 2048), 0)
	top := newStack(t, ctx, base, withBacking)
	d := &disk{t: t, ctx: ctx, Subject: Subject{Driver: top}}
	m := newModel(d)
	copy(m.bytes, pattern(1, 2048))
	m.checkAll()
	require.Equal(t, []uint32{2, 0}, depths(d.status(blockcore.Range{Length: 2048}, 9), d.status(blockcore.Range{Offset: 4096, Length: 512}, 9)))
	m.write(700, []byte{1, 2, 3}, 0)
	m.zero(blockcore.Range{Offset: 1500, Length: 40}, blockcore.ZeroMayUnmap)
	m.checkAll()
	require.Equal(t, []uint32{2, 1}, depths(d.status(blockcore.Range{Length: 512}, 9), d.status(blockcore.Range{Offset: 512, Length: 1536}, 9)))
	d.close()
}

// depths returns the depth of each extent.
func depths(lists ...[]blockcore.Extent) []uint32 {
	var all []uint32
	for _, list := range lists {
		for _, e := range list {
			all = append(all, e.Depth)
		}
	}
	return all
}
