package blockcore

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"unsafe"

	"nbd-dataplane/internal/check"
)

// Role says what a node uses a child for, in QEMU's words: "file", "backing". An owner's edge is "root".
type Role string

// The roles that there are.
const (
	RoleRoot    Role = "root"
	RoleFile    Role = "file"
	RoleBacking Role = "backing"
	RoleData    Role = "data-file"
	RoleTarget  Role = "target"
)

// Edge leads from an owner or a node to the node below it and is the only thing with I/O methods: here ranges
// are checked and widened to the driver's alignment, and requests counted in flight, once for all drivers.
//
// Analogous to QEMU's BdrvChild.
type Edge struct {
	// Immutable.
	name   string // of the child in its parent, as QEMU has it
	role   Role
	parent *Node // who uses the child: a node,
	root   *Root // or an owner

	// Changed only by a Tx.
	quietParent bool // the child is quiesced, and has had the parent quiesced through this edge

	// Safe from anywhere.
	child  atomic.Pointer[Node] // changes only while the parent is drained
	perm   atomic.Uint32        // Permissions taken
	shared atomic.Uint32        // Permissions left to others
}

func newEdge(role Role, name string, child *Node) *Edge {
	e := &Edge{name: name, role: role}
	e.child.Store(child)
	e.shared.Store(uint32(PermAll))
	return e
}

// Node returns the node that e leads to. Safe from anywhere.
func (e *Edge) Node() *Node { return e.child.Load() }

// Role returns what the child is used for. Safe from anywhere.
func (e *Edge) Role() Role { return e.role }

// Name returns what the parent calls the child. Safe from anywhere.
func (e *Edge) Name() string { return e.name }

// Permissions returns what the parent may do. Safe from anywhere.
func (e *Edge) Permissions() Permissions { return Permissions(e.perm.Load()) }

// Shared returns what the parent lets others do. Safe from anywhere.
func (e *Edge) Shared() Permissions { return Permissions(e.shared.Load()) }

// zeroesPiece is how much is written at once where zeroes must be written as data, in bytes.
const zeroesPiece = 1 << 20

// Read fills p, which comes from Buffers, from offset off.
func (e *Edge) Read(t *Task, p []byte, off int64) error {
	n := e.child.Load()
	r := Range{off, int64(len(p))}
	if !r.Within(n.Size()) {
		return n.refused(KindRead, outside("read", n, r, syscall.EINVAL))
	}
	above, since := n.begin(t), t.Latest()
	err := n.account.ended(t, KindRead, since, r.Length, n.read(t, p, off))
	n.end(t, above)
	return err
}

// Write stores p, which comes from Buffers, at offset off.
func (e *Edge) Write(t *Task, p []byte, off int64, flags WriteFlags) error {
	n := e.child.Load()
	r := Range{off, int64(len(p))}
	if err := e.checkWrite("write", r, flags&WriteUnchanged != 0, syscall.ENOSPC); err != nil {
		return n.refused(KindWrite, err)
	}
	if flags&WriteCompressed != 0 && n.CompressedUnit() == 0 {
		return n.refused(KindWrite, fmt.Errorf("compressed write to node %s: %w", n.name, syscall.ENOTSUP))
	}
	above, since := n.begin(t), t.Latest()
	n.account.written(r)
	err := n.account.ended(t, KindWrite, since, r.Length, n.write(t, p, off, flags))
	n.dirtied(r)
	n.end(t, above)
	return err
}

// Flush makes durable all writes that have returned.
func (e *Edge) Flush(t *Task) error {
	n := e.child.Load()
	if n.can.flusher == nil {
		return nil
	}
	above, since := n.begin(t), t.Latest()
	err := n.account.ended(t, KindFlush, since, 0, n.can.flusher.Flush(t))
	n.end(t, above)
	return err
}

// WriteZeroes has the range read as zeroes. See Zeroer for the flags.
func (e *Edge) WriteZeroes(t *Task, r Range, flags ZeroFlags) error {
	n := e.child.Load()
	if err := e.checkWrite("write zeroes", r, flags&ZeroUnchanged != 0, syscall.ENOSPC); err != nil {
		return n.refused(KindWrite, err)
	}
	above, since := n.begin(t), t.Latest()
	n.account.written(r)
	err := n.account.ended(t, KindWrite, since, r.Length, n.writeZeroes(t, r, flags))
	if err == nil {
		n.account.zeroes++
	}
	n.dirtied(r)
	n.end(t, above)
	return err
}

// Discard gives up the contents of the range, rounded inwards to what the driver takes. With fua set, what was
// done is durable on return.
func (e *Edge) Discard(t *Task, r Range, fua bool) error {
	n := e.child.Load()
	if err := e.checkWrite("discard", r, false, syscall.EINVAL); err != nil {
		return n.refused(KindDiscard, err)
	}
	above, since := n.begin(t), t.Latest()
	err := n.discard(t, r)
	n.dirtied(r)
	if err == nil && fua && n.can.flusher != nil {
		err = n.can.flusher.Flush(t)
	}
	_ = n.account.ended(t, KindDiscard, since, r.Length, err)
	n.end(t, above)
	return err
}

// BlockStatus appends to exts at least one and at most max extents that begin at r.Offset and do not go past
// r.End().
func (e *Edge) BlockStatus(t *Task, r Range, exts []Extent, max int) ([]Extent, error) {
	n := e.child.Load()
	if !r.Within(n.Size()) || r.Length == 0 {
		return exts, outside("block status", n, r, syscall.EINVAL)
	}
	if n.can.mapper == nil {
		return append(exts, Extent{Length: r.Length, Depth: 1}), nil
	}
	above := n.begin(t)
	exts, err := n.blockStatus(t, r, exts, max)
	n.end(t, above)
	return exts, err
}

// Prefetch brings the range into a cache where the driver has one.
func (e *Edge) Prefetch(t *Task, r Range) error {
	n := e.child.Load()
	if !r.Within(n.Size()) {
		return outside("prefetch", n, r, syscall.EINVAL)
	}
	if n.can.prefetcher == nil {
		return nil
	}
	above := n.begin(t)
	err := n.can.prefetcher.Prefetch(t, r.Widen(n.align()))
	n.end(t, above)
	return err
}

// CachedFile tells where the kernel holds the range in memory; see CacheTeller.
func (e *Edge) CachedFile(r Range) (fd int, off int64, ok bool) {
	n := e.child.Load()
	if n.can.teller == nil || !r.Within(n.Size()) {
		return 0, 0, false
	}
	return n.can.teller.CachedFile(r)
}

// checkWrite is what all requests that write have in common.
func (e *Edge) checkWrite(what string, r Range, unchanged bool, past syscall.Errno) error {
	n := e.child.Load()
	enough := PermWrite
	if unchanged {
		enough |= PermWriteUnchanged
	}
	if e.Permissions()&enough == 0 || n.can.writer == nil {
		return fmt.Errorf("%s to node %s: %w", what, n.name, syscall.EPERM)
	}
	if !r.Within(n.Size()) {
		return outside(what, n, r, past)
	}
	return nil
}

func outside(what string, n *Node, r Range, errno syscall.Errno) error {
	return fmt.Errorf("%s of %v goes past the end of node %s at %#x: %w", what, r, n.name, n.Size(), errno)
}

// addressAlignMax is the most that is asked of the address of a buffer: what Buffers gives.
const addressAlignMax = 4096

// fits reports whether p can go to the driver as it is.
func (n *Node) fits(p []byte, off int64) bool {
	align := n.align()
	if align == 1 {
		return true
	}
	address := int64(uintptr(unsafe.Pointer(unsafe.SliceData(p))))
	return (off|int64(len(p)))&(align-1) == 0 && address&(min(align, addressAlignMax)-1) == 0
}

func (n *Node) read(t *Task, p []byte, off int64) error {
	if !n.fits(p, off) {
		return n.readUnaligned(t, p, off)
	}
	if limit := n.Limits().TransferMax; limit > 0 && int64(len(p)) > limit {
		for len(p) > 0 {
			piece := p[:min(int64(len(p)), limit)]
			if err := n.driver.ReadAt(t, piece, off); err != nil {
				return err
			}
			p, off = p[len(piece):], off+int64(len(piece))
		}
		return nil
	}
	return n.driver.ReadAt(t, p, off)
}

// readUnaligned reads the blocks around the range, piece by piece, through a buffer of its own.
func (n *Node) readUnaligned(t *Task, p []byte, off int64) error {
	for len(p) > 0 {
		piece := n.piece(Range{off, int64(len(p))})
		wide := piece.Widen(n.align())
		buf := t.Buffers().Get(int(wide.Length))
		err := n.driver.ReadAt(t, buf, wide.Offset)
		if err == nil {
			copy(p[:piece.Length], buf[off-wide.Offset:])
		}
		t.Buffers().Put(buf)
		if err != nil {
			return err
		}
		p, off = p[piece.Length:], off+piece.Length
	}
	return nil
}

// piece returns the beginning of r that one bounce buffer holds: it ends at a multiple of the alignment
// or at r's own end.
func (n *Node) piece(r Range) Range {
	limit := int64(bounceMax)
	if n.Limits().TransferMax > 0 {
		limit = min(limit, n.Limits().TransferMax)
	}
	begin := r.Offset &^ (n.align() - 1)
	if r.End()-begin > limit {
		r.Length = begin + limit - r.Offset
	}
	return r
}

// bounceMax bounds one bounce buffer, in bytes.
const bounceMax = 1 << 20

func (n *Node) discard(t *Task, r Range) error {
	if n.can.discarder == nil {
		return nil
	}
	align := n.align()
	begin := (r.Offset + align - 1) &^ (align - 1)
	end := r.End() &^ (align - 1)
	if begin >= end {
		return nil
	}
	inner := Range{begin, end - begin}
	if n.isLoose() {
		n.loosen()
		err := n.can.discarder.Discard(t, inner)
		n.tighten()
		return err
	}
	lock := n.writes.Acquire(t, inner, false)
	defer n.writes.Release(lock)
	return n.can.discarder.Discard(t, inner)
}

func (n *Node) blockStatus(t *Task, r Range, exts []Extent, max int) ([]Extent, error) {
	before := len(exts)
	wide := r.Widen(n.align())
	all, err := n.can.mapper.BlockStatus(t, wide, exts, max)
	if err != nil {
		return exts, err
	}
	skip := r.Offset - wide.Offset
	told := total(all[before:])
	if check.Enabled {
		check.Invariant(len(all)-before <= max, "node %s: BlockStatus gave %d extents of at most %d", n.name, len(all)-before, max)
		check.Invariant(told > skip, "node %s: BlockStatus of %v told of %d bytes", n.name, wide, told)
	}
	if told <= skip {
		return exts, fmt.Errorf("block status of %v: node %s tells of %d bytes only: %w", wide, n.name, told, syscall.EIO)
	}
	return trim(all, before, skip, r.Length), nil
}

// total returns the length of exts together, in bytes.
func total(exts []Extent) (lengthBytes int64) {
	for i := range exts {
		lengthBytes += exts[i].Length
	}
	return lengthBytes
}

// trim cuts skip bytes from the beginning of exts[from:] and what is behind length bytes from its end.
func trim(exts []Extent, from int, skip, length int64) []Extent {
	for from < len(exts) && exts[from].Length <= skip {
		skip -= exts[from].Length
		exts = append(exts[:from], exts[from+1:]...)
	}
	exts[from].Length -= skip
	for i := from; i < len(exts); i++ {
		if exts[i].Length >= length {
			exts[i].Length = length
			return exts[:i+1]
		}
		length -= exts[i].Length
	}
	return exts
}
