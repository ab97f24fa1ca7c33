package blocktest

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/blockcore"
)

// Subject is one opened driver under test. The suite closes it. Its disk reads as zeroes when it is opened, and is
// best between 64 KiB and 4 MiB.
type Subject struct {
	// Driver is open and nobody else uses it.
	Driver blockcore.Driver
	// Reopen opens the same storage again after the driver was closed; nil where nothing lasts.
	Reopen func() blockcore.Driver
	// Forgets says that reads give zeroes whatever was written.
	Forgets bool
	// SizeFixed says that the size is not ours to choose, whatever interfaces there are.
	SizeFixed bool
}

// TestDriver runs the suite. open makes a new, empty subject for each part; it runs on an ordinary goroutine.
func TestDriver(t *testing.T, open func(t *testing.T) Subject) {
	runSuite(t, func(t *testing.T, _ *blockcore.AioContext) Subject { return open(t) })
}

// runSuite is TestDriver for subjects that want to know the AioContext.
func runSuite(t *testing.T, openOn func(*testing.T, *blockcore.AioContext) Subject) {
	for _, engine := range []struct {
		name string
		kind blockcore.EngineKind
	}{
		{"io_uring", blockcore.EngineURing},
		{"threads", blockcore.EngineThreads},
	} {
		t.Run(engine.name, func(t *testing.T) {
			ctx := NewContext(t, engine.kind)
			open := func(t *testing.T) Subject { return openOn(t, ctx) }
			for _, part := range parts {
				t.Run(part.name, func(t *testing.T) { part.run(t, ctx, open) })
			}
		})
	}
}

// parts of the suite. Each says its goal and method where it is defined.
var parts = []struct {
	name string
	run  func(*testing.T, *blockcore.AioContext, func(*testing.T) Subject)
}{
	{"statements", testStatements},
	{"boundaries", testBoundaries},
	{"buffers", testBuffers},
	{"zeroes", testZeroes},
	{"discard", testDiscard},
	{"map", testMap},
	{"parallel", testParallel},
	{"reopen", testReopen},
	{"resize", testResize},
	{"extend", testExtend},
	{"random", testRandom},
}

// NewContext returns an AioContext that is closed at the end of the test.
func NewContext(t *testing.T, engine blockcore.EngineKind) *blockcore.AioContext {
	t.Helper()
	ctx, err := blockcore.NewAioContext(blockcore.ContextOptions{Name: t.Name(), Engine: engine})
	require.NoError(t, err)
	t.Cleanup(ctx.Close)
	return ctx
}

// reporter is what a testing.T and a rapid.T have in common.
type reporter interface {
	require.TestingT
	Helper()
}

// disk is a Subject with its operations made easy: they run as Tasks, take any memory and end the test on error.
type disk struct {
	t   reporter
	ctx *blockcore.AioContext
	Subject
}

func openDisk(t *testing.T, ctx *blockcore.AioContext, open func(*testing.T) Subject) *disk {
	t.Helper()
	d := &disk{t: t, ctx: ctx, Subject: open(t)}
	t.Cleanup(func() { d.close() })
	return d
}

func (d *disk) close() {
	if d.Driver != nil {
		require.NoError(d.t, d.ctx.Do(d.Driver.Close))
		d.Driver = nil
	}
}

// align is the unit of offsets and lengths.
func (d *disk) align() int64 { return limitsOf(d.Driver).Align }

func limitsOf(d blockcore.Driver) blockcore.Limits {
	if l, ok := d.(blockcore.Limiter); ok {
		return l.Limits()
	}
	return blockcore.Limits{Align: 1}
}

func featuresOf(d blockcore.Driver) blockcore.Features {
	if f, ok := d.(blockcore.Featurer); ok {
		return f.Features()
	}
	return blockcore.Features{}
}

func (d *disk) do(fn func(*blockcore.Task) error) {
	d.t.Helper()
	require.NoError(d.t, d.ctx.Do(fn))
}

func (d *disk) read(off, n int64) []byte {
	d.t.Helper()
	var got []byte
	d.do(func(t *blockcore.Task) (err error) {
		got, err = readTo(t, d.Driver, off, n)
		return err
	})
	return got
}

func (d *disk) write(off int64, p []byte, flags blockcore.WriteFlags) {
	d.t.Helper()
	d.do(func(t *blockcore.Task) error { return writeFrom(t, d.Driver, off, p, flags) })
}

// zero does what an Edge does for a driver that has no better way.
func (d *disk) zero(r blockcore.Range, flags blockcore.ZeroFlags) {
	d.t.Helper()
	d.do(func(t *blockcore.Task) error {
		err := error(syscall.ENOTSUP)
		if z, ok := d.Driver.(blockcore.Zeroer); ok {
			err = z.WriteZeroes(t, r, flags&^blockcore.ZeroNoFallback)
		}
		if !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
		var fua blockcore.WriteFlags
		if flags&blockcore.ZeroFUA != 0 {
			fua = blockcore.WriteFUA
		}
		return writeFrom(t, d.Driver, r.Offset, make([]byte, r.Length), fua)
	})
}

func (d *disk) discard(r blockcore.Range) {
	d.t.Helper()
	if driver, ok := d.Driver.(blockcore.Discarder); ok {
		d.do(func(t *blockcore.Task) error { return driver.Discard(t, r) })
	}
}

func (d *disk) flush() {
	d.t.Helper()
	if driver, ok := d.Driver.(blockcore.Flusher); ok {
		d.do(driver.Flush)
	}
}

// status asks for at most max extents of r and checks what an answer must be.
func (d *disk) status(r blockcore.Range, max int) []blockcore.Extent {
	d.t.Helper()
	driver, ok := d.Driver.(blockcore.Mapper)
	if !ok {
		return []blockcore.Extent{{Length: r.Length, Depth: 1}}
	}
	sentinel := blockcore.Extent{Length: 12345}
	exts := []blockcore.Extent{sentinel}
	d.do(func(t *blockcore.Task) (err error) {
		exts, err = driver.BlockStatus(t, r, exts, max)
		return err
	})
	require.Equal(d.t, sentinel, exts[0], "BlockStatus appends")
	exts = exts[1:]
	require.NotEmpty(d.t, exts)
	require.LessOrEqual(d.t, len(exts), max)
	var sum int64
	for _, e := range exts {
		require.Positive(d.t, e.Length)
		require.Zero(d.t, e.Length%d.align(), "extents are made of whole blocks")
		sum += e.Length
	}
	require.LessOrEqual(d.t, sum, d.Driver.Size()-r.Offset)
	return exts
}

// unread is what is in a buffer that a driver has not filled.
var unread = bytes.Repeat([]byte{0xdb}, 64<<10)

func readTo(t *blockcore.Task, d blockcore.Driver, off, n int64) ([]byte, error) {
	buf := t.Buffers().Get(int(n))
	defer t.Buffers().Put(buf)
	for rest := buf; len(rest) > 0; {
		rest = rest[copy(rest, unread):]
	}
	if err := d.ReadAt(t, buf, off); err != nil {
		return nil, err
	}
	return append(make([]byte, 0, n), buf...), nil
}

func writeFrom(t *blockcore.Task, d blockcore.Driver, off int64, p []byte, flags blockcore.WriteFlags) error {
	w, ok := d.(blockcore.Writer)
	if !ok {
		return errors.New("the driver cannot write; the suite is for those that can")
	}
	buf := t.Buffers().Get(len(p))
	defer t.Buffers().Put(buf)
	copy(buf, p)
	return w.WriteAt(t, buf, off, flags)
}
