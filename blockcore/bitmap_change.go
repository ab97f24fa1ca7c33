package blockcore

import (
	"fmt"
	"slices"
)

// BitmapBusy is why a bitmap cannot be used: somebody else does.
type BitmapBusy struct{ Name string }

func (e *BitmapBusy) Error() string {
	return fmt.Sprintf("Bitmap '%s' is currently in use by another operation and cannot be used", e.Name)
}

// BitmapInconsistent is why a bitmap cannot be used: it was not stored.
type BitmapInconsistent struct{ Name string }

func (e *BitmapInconsistent) Error() string {
	return fmt.Sprintf("Bitmap '%s' is inconsistent and cannot be used", e.Name)
}

// BitmapUse says what a bitmap is wanted for.
type BitmapUse uint8

// The uses.
const (
	BitmapRead   BitmapUse = iota // what is marked, or whether writes are to be: others may look too
	BitmapChange                  // what is marked
	BitmapRemove                  // the bitmap itself, an inconsistent one too
)

// Check returns why b cannot be used, in QEMU's words. Safe from anywhere.
func (b *Bitmap) Check(use BitmapUse) error {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	return b.check(use)
}

// check is Check with list.mu held.
func (b *Bitmap) check(use BitmapUse) error {
	switch {
	case b.gone:
		return fmt.Errorf("Dirty bitmap '%s' not found", b.name)
	case b.busy:
		return &BitmapBusy{b.name}
	case b.state.ReadOnly && use != BitmapRead:
		return fmt.Errorf("Bitmap '%s' is readonly and cannot be modified", b.name)
	case b.state.Inconsistent && use != BitmapRemove:
		return &BitmapInconsistent{b.name}
	}
	return nil
}

// Acquire keeps everybody from changing or removing b, until Release. Writes are marked in it nevertheless.
func (b *Bitmap) Acquire() error { return b.AcquireFor(BitmapRead) }

// AcquireFor is Acquire by somebody who is to have a use of his own for b.
func (b *Bitmap) AcquireFor(use BitmapUse) error {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	if err := b.check(use); err != nil {
		return err
	}
	b.busy = true
	return nil
}

// Release undoes Acquire. Safe from anywhere.
func (b *Bitmap) Release() {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.busy = false
}

// Enable says whether what is written is marked, and returns how to have it be as it was.
func (b *Bitmap) Enable(enabled bool) (undo func(), err error) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	if err := b.check(BitmapRead); err != nil {
		return nil, err
	}
	before := b.state.Enabled
	b.state.Enabled = enabled
	return func() {
		b.list.mu.Lock()
		defer b.list.mu.Unlock()
		b.state.Enabled = before
	}, nil
}

// Clear has nothing be marked, and returns how to have marked again what was; what is marked meanwhile stays so. drop gives the memory back that
// undo needs: one of the two is called.
func (b *Bitmap) Clear() (undo, drop func(), err error) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	if err := b.check(BitmapChange); err != nil {
		return nil, nil, err
	}
	before := b.set
	b.set = bitSet{length: before.length, memory: before.memory}
	drop = func() {
		b.list.mu.Lock()
		defer b.list.mu.Unlock()
		before.drop()
	}
	undo = func() {
		b.list.mu.Lock()
		defer b.list.mu.Unlock()
		b.set.join(&before)
		before.drop()
	}
	return undo, drop, nil
}

// join adds all that is in another set of the same kind.
func (s *bitSet) join(other *bitSet) {
	for from := other.next(0, true); from < other.length; {
		end := other.next(from, false)
		s.set(from, end)
		from = other.next(end, true)
	}
}

// Merge marks in b what is marked in from, which may be a bitmap of another node, and returns as Clear does how to undo it.
func (b *Bitmap) Merge(from *Bitmap) (undo, drop func(), err error) {
	if err := b.mayMerge(from); err != nil {
		return nil, nil, err
	}
	undo, drop = b.beforeMerge()
	if from == b {
		return undo, drop, nil
	}
	var runs [mergeRuns]Range
	for at := int64(0); ; {
		n, next := from.runs(runs[:], at)
		if n == 0 {
			return undo, drop, nil
		}
		b.list.mu.Lock()
		for _, r := range runs[:n] {
			b.set.set(b.granules(r))
		}
		b.list.mu.Unlock()
		at = next
	}
}

// beforeMerge remembers what is marked, and from now on what is written: undo has that be marked and nothing else.
func (b *Bitmap) beforeMerge() (undo, drop func()) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	before := bitSet{length: b.set.length, memory: b.set.memory}
	before.join(&b.set)
	since := &bitSet{length: b.set.length, memory: b.set.memory}
	b.since = append(b.since, since)
	end := func(back bool) {
		b.list.mu.Lock()
		defer b.list.mu.Unlock()
		if back {
			b.set.drop()
			b.set.join(&before)
			b.set.join(since)
		}
		before.drop()
		since.drop()
		b.since = slices.DeleteFunc(b.since, func(other *bitSet) bool { return other == since })
	}
	return func() { end(true) }, func() { end(false) }
}

// mergeRuns is how many runs are read at once: the two bitmaps are never locked together.
const mergeRuns = 512

// mayMerge refuses what cannot be merged.
func (b *Bitmap) mayMerge(from *Bitmap) error {
	if err := b.Check(BitmapChange); err != nil {
		return err
	}
	if err := from.Check(BitmapRead); err != nil {
		return err
	}
	if to, of := b.list.size(), from.list.size(); to != of {
		return fmt.Errorf("Bitmaps are of different sizes (destination size is %d, source size is %d) and can't be merged", to, of)
	}
	return nil
}

// runs notes runs of bytes that are marked, from the byte at on, and returns how many and where to go on.
func (b *Bitmap) runs(runs []Range, at int64) (n int, next int64) {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.list.fit()
	g := b.granularityBits
	from := b.set.next(at>>g, true)
	for from < b.set.length && n < len(runs) {
		end := b.set.next(from, false)
		runs[n] = Range{Offset: from << g, Length: min(end<<g, b.list.sizeBytes) - from<<g}
		n++
		at = end << g
		from = b.set.next(end, true)
	}
	return n, at
}

// Remove takes b out of the list. Its memory stays taken until Forget, or Restore has it back.
func (b *Bitmap) Remove() error {
	l := b.list
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := b.check(BitmapRemove); err != nil {
		return err
	}
	l.take(b)
	return nil
}

// take takes b out. l.mu is held.
func (l *Bitmaps) take(b *Bitmap) {
	b.gone = true
	for k := range l.all {
		if l.all[k] == b {
			l.all = append(append([]*Bitmap(nil), l.all[:k]...), l.all[k+1:]...)
			return
		}
	}
}

// Forget gives the memory of a bitmap back that was removed, and takes it out if it was not. Safe from anywhere.
func (b *Bitmap) Forget() {
	b.list.mu.Lock()
	defer b.list.mu.Unlock()
	b.list.take(b)
	b.set.drop()
}
