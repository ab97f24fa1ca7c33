package blockcore

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// tempFile returns a descriptor of a file without a name.
func tempFile(t testing.TB, sizeBytes int64) int {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "disk")
	require.NoError(t, err)
	require.NoError(t, f.Truncate(sizeBytes))
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// memory is a driver with all abilities that keeps its bytes on the heap. It checks what the Edge promises to
// drivers, suspends at random, and fails on demand. It works block by block: each is changed
// at one moment, whole, and others run between two of them.
type memory struct {
	// Immutable.
	limits   Limits
	features Features

	// Owned by the context.
	data   []byte
	broken error      // the first promise of the Edge that was not kept
	rng    *rand.Rand // where it suspends; nil = nowhere
	fail   func(op string) error
	calls  []string // a transcript where log is set
	log    bool
	closed bool
}

func newMemory(sizeBytes int64, l Limits) *memory {
	return &memory{limits: l, data: make([]byte, sizeBytes)}
}

func (m *memory) Size() int64        { return int64(len(m.data)) }
func (m *memory) Limits() Limits     { return m.limits }
func (m *memory) Features() Features { return m.features }

// enter is the begin of each call.
func (m *memory) enter(t *Task, op string, r Range) error {
	if m.log {
		m.calls = append(m.calls, fmt.Sprintf("%s %d+%d", op, r.Offset, r.Length))
	}
	if !r.Within(m.Size()) || !r.Aligned(m.limits.Align) {
		m.breach("%s of %v on %d bytes with alignment %d", op, r, m.Size(), m.limits.Align)
		return syscall.EINVAL
	}
	m.pause(t)
	if m.fail != nil {
		return m.fail(op)
	}
	return nil
}

func (m *memory) breach(format string, args ...any) {
	if m.broken == nil {
		m.broken = fmt.Errorf(format, args...)
	}
}

func (m *memory) pause(t *Task) {
	if m.rng == nil {
		return
	}
	for range m.rng.IntN(3) {
		t.Yield()
	}
}

// transfer checks a buffer and calls step for each block of the range.
func (m *memory) transfer(t *Task, op string, p []byte, off int64, step func(block, p []byte)) error {
	if limit := m.limits.TransferMax; limit > 0 && int64(len(p)) > limit {
		m.breach("%s of %d bytes, more than %d", op, len(p), limit)
	}
	if address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(p)))); address%min(m.limits.Align, 4096) != 0 {
		m.breach("%s with a buffer at %#x", op, address)
	}
	if err := m.enter(t, op, Range{off, int64(len(p))}); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(max(m.limits.Align, 512), int64(len(p)))
		step(m.data[off:off+n], p[:n])
		p, off = p[n:], off+n
		m.pause(t)
	}
	return nil
}

func (m *memory) ReadAt(t *Task, p []byte, off int64) error {
	return m.transfer(t, "read", p, off, func(block, p []byte) { copy(p, block) })
}

func (m *memory) WriteAt(t *Task, p []byte, off int64, flags WriteFlags) error {
	op := "write"
	if flags&WriteFUA != 0 {
		op = "write fua"
	}
	return m.transfer(t, op, p, off, func(block, p []byte) { copy(block, p) })
}

func (m *memory) Flush(t *Task) error { return m.enter(t, "flush", Range{}) }

func (m *memory) clear(t *Task, r Range) {
	for r.Length > 0 {
		n := min(max(m.limits.Align, 512), r.Length)
		clear(m.data[r.Offset : r.Offset+n])
		r = Range{r.Offset + n, r.Length - n}
		m.pause(t)
	}
}

func (m *memory) WriteZeroes(t *Task, r Range, flags ZeroFlags) error {
	if err := m.enter(t, "zero", r); err != nil {
		return err
	}
	m.clear(t, r)
	return nil
}

func (m *memory) Discard(t *Task, r Range) error {
	if err := m.enter(t, "discard", r); err != nil {
		return err
	}
	m.clear(t, r)
	return nil
}

// BlockStatus tells of each run of blocks that are zero or not.
func (m *memory) BlockStatus(t *Task, r Range, exts []Extent, limit int) ([]Extent, error) {
	if err := m.enter(t, "status", r); err != nil {
		return nil, err
	}
	unit := m.limits.Align
	before := len(exts)
	for off := r.Offset; off < r.End(); off += unit {
		e := extentOf(m.data[off : off+unit])
		if last := len(exts) - 1; last >= before && exts[last].Status == e.Status {
			exts[last].Length += unit
			continue
		}
		if len(exts)-before == limit {
			break
		}
		exts = append(exts, e)
	}
	return exts, nil
}

// extentOf describes some bytes: a hole where they are zero.
func extentOf(p []byte) Extent {
	for _, b := range p {
		if b != 0 {
			return Extent{Length: int64(len(p)), Depth: 1}
		}
	}
	return Extent{Length: int64(len(p)), Status: ExtentHole | ExtentZero}
}

func (m *memory) Prefetch(t *Task, r Range) error {
	if !r.Within(m.Size()) {
		m.breach("prefetch of %v", r)
	}
	return nil
}

func (m *memory) Close(*Task) error {
	m.closed = true
	if m.log {
		m.calls = append(m.calls, "close")
	}
	if m.fail != nil {
		return m.fail("close")
	}
	return nil
}

// bare is a memory that can only be read.
type bare struct{ m *memory }

func (b bare) Size() int64                               { return b.m.Size() }
func (b bare) Limits() Limits                            { return b.m.limits }
func (b bare) Close(t *Task) error                       { return b.m.Close(t) }
func (b bare) ReadAt(t *Task, p []byte, off int64) error { return b.m.ReadAt(t, p, off) }

// plain is a memory that can be read and written and nothing else.
type plain struct{ bare }

func (p plain) WriteAt(t *Task, b []byte, off int64, flags WriteFlags) error {
	return p.m.WriteAt(t, b, off, flags)
}

// attach makes a node of d and a Root that may write it, where it can be written.
func attach(t testing.TB, c *AioContext, d Driver) *Root {
	t.Helper()
	g := NewGraph()
	n, err := g.AddNode(NodeOptions{Name: "disk", Context: c, Driver: d})
	require.NoError(t, err)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Writable: n.Writable()})
	require.NoError(t, err)
	return r
}

// fill gives p contents that tell offset and tag, without a zero.
func fill(p []byte, tag int) {
	for i := range p {
		p[i] = byte(tag*62+i*14+i>>8*2) | 1
	}
}
