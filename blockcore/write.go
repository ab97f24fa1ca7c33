package blockcore

import (
	"errors"
	"syscall"
)

// write stores p; what does not fit the driver's alignment is merged with what is around it.
//
// INVARIANT: where there is an alignment, or somebody holds a range (Edge.Hold), all writes hold the lock of their range, and one
// that reads, merges and writes holds it alone: two writes into one block never undo each other.
func (n *Node) write(t *Task, p []byte, off int64, flags WriteFlags) error {
	if n.isLoose() {
		n.loosen()
		err := n.writePieces(t, p, off, flags)
		n.tighten()
		return err
	}
	r := Range{off, int64(len(p))}
	if flags&WriteHeld != 0 {
		n.assertHeld(r)
		return n.writeLocked(t, p, off, flags&^WriteHeld)
	}
	aligned := r.Aligned(n.align())
	lock := n.writes.Acquire(t, r.Widen(n.align()), !aligned)
	defer n.writes.Release(lock)
	return n.writeLocked(t, p, off, flags)
}

// writeLocked is write with the lock of the range.
func (n *Node) writeLocked(t *Task, p []byte, off int64, flags WriteFlags) error {
	if n.fits(p, off) {
		return n.writePieces(t, p, off, flags)
	}
	return n.writeBounced(t, p, off, flags)
}

func (n *Node) writePieces(t *Task, p []byte, off int64, flags WriteFlags) error {
	limit := n.Limits().TransferMax
	if limit == 0 || int64(len(p)) <= limit {
		return n.can.writer.WriteAt(t, p, off, flags)
	}
	for len(p) > 0 {
		piece := p[:min(int64(len(p)), limit)]
		if err := n.can.writer.WriteAt(t, piece, off, flags); err != nil {
			return err
		}
		p, off = p[len(piece):], off+int64(len(piece))
	}
	return nil
}

// writeBounced writes whole blocks out of a buffer of its own, in which the ends are first filled with
// what the blocks hold. The lock of the range is held.
func (n *Node) writeBounced(t *Task, p []byte, off int64, flags WriteFlags) error {
	for len(p) > 0 {
		piece := n.piece(Range{off, int64(len(p))})
		if err := n.mergeAndWrite(t, p[:piece.Length], piece, flags); err != nil {
			return err
		}
		p, off = p[piece.Length:], off+piece.Length
	}
	return nil
}

func (n *Node) mergeAndWrite(t *Task, p []byte, r Range, flags WriteFlags) error {
	wide := r.Widen(n.align())
	buf := t.Buffers().Get(int(wide.Length))
	defer t.Buffers().Put(buf)
	if err := n.readEnds(t, buf, r, wide); err != nil {
		return err
	}
	copy(buf[r.Offset-wide.Offset:], p)
	return n.can.writer.WriteAt(t, buf, wide.Offset, flags)
}

// readEnds fills the first and the last block of buf, which stands for wide, where r covers them only
// in part.
func (n *Node) readEnds(t *Task, buf []byte, r, wide Range) error {
	align := n.align()
	head := r.Offset > wide.Offset
	tail := r.End() < wide.End()
	if head || tail && wide.Length == align {
		if err := n.driver.ReadAt(t, buf[:align], wide.Offset); err != nil {
			return err
		}
		if wide.Length == align {
			return nil
		}
	}
	if !tail {
		return nil
	}
	return n.driver.ReadAt(t, buf[wide.Length-align:], wide.End()-align)
}

// writeZeroes has the driver zero the whole blocks of r, and writes what remains at the ends.
func (n *Node) writeZeroes(t *Task, r Range, flags ZeroFlags) error {
	if r.Length == 0 {
		return nil
	}
	if flags&ZeroNoFallback != 0 && !n.Features().FastZero {
		return syscall.ENOTSUP // also for parts of blocks, which are written in any case
	}
	align := n.align()
	switch {
	case n.isLoose():
		n.loosen()
		err := n.zeroAligned(t, r, flags)
		n.tighten()
		return err
	case flags&ZeroHeld != 0:
		n.assertHeld(r)
		return n.zeroLocked(t, r, flags&^ZeroHeld)
	}
	lock := n.writes.Acquire(t, r.Widen(align), !r.Aligned(align))
	defer n.writes.Release(lock)
	return n.zeroLocked(t, r, flags)
}

// zeroLocked is writeZeroes with the lock of the range.
func (n *Node) zeroLocked(t *Task, r Range, flags ZeroFlags) error {
	align := n.align()
	begin := min((r.Offset+align-1)&^(align-1), r.End())
	end := max(r.End()&^(align-1), begin)
	// The middle first: when it is refused nothing must have changed.
	if end > begin {
		if err := n.zeroAligned(t, Range{begin, end - begin}, flags); err != nil {
			return err
		}
	}
	if err := n.zeroEnd(t, Range{r.Offset, begin - r.Offset}, flags); err != nil {
		return err
	}
	return n.zeroEnd(t, Range{end, r.End() - end}, flags)
}

// zeroEnd zeroes a part of one block.
func (n *Node) zeroEnd(t *Task, r Range, flags ZeroFlags) error {
	if r.Length == 0 {
		return nil
	}
	zeroes := t.Buffers().Get(int(r.Length))
	defer t.Buffers().Put(zeroes)
	clear(zeroes)
	return n.writeBounced(t, zeroes, r.Offset, flags.write())
}

// zeroAligned zeroes whole blocks: by the driver's own means, or by writing zeroes where that is allowed.
func (n *Node) zeroAligned(t *Task, r Range, flags ZeroFlags) error {
	err := error(syscall.ENOTSUP)
	if n.can.zeroer != nil {
		err = n.can.zeroer.WriteZeroes(t, r, flags)
	}
	if !errors.Is(err, syscall.ENOTSUP) || flags&ZeroNoFallback != 0 {
		return err
	}
	zeroes := t.Buffers().Get(int(min(r.Length, zeroesPiece)))
	defer t.Buffers().Put(zeroes)
	clear(zeroes)
	for r.Length > 0 {
		piece := zeroes[:min(r.Length, int64(len(zeroes)))]
		if err := n.writePieces(t, piece, r.Offset, flags.write()); err != nil {
			return err
		}
		r.Offset += int64(len(piece))
		r.Length -= int64(len(piece))
		t.Yield()
	}
	return nil
}

// write returns the flags of a write that stands for zeroing.
func (f ZeroFlags) write() WriteFlags {
	var w WriteFlags
	if f&ZeroFUA != 0 {
		w |= WriteFUA
	}
	if f&ZeroUnchanged != 0 {
		w |= WriteUnchanged
	}
	return w
}
