package blockcore

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Bitmap says which parts of a node have changed since it was made or cleared. It belongs to the Bitmaps of a node.
//
// Analogous to QEMU's BdrvDirtyBitmap.
type Bitmap struct {
	// Immutable.
	list            *Bitmaps
	name            string
	granularityBits uint

	// Guarded by list.mu.
	state BitmapState
	set   bitSet
	since []*bitSet // what is marked by writes while merges may still be undone
	busy  bool      // somebody counts on it that nobody changes it
	gone  bool      // removed
}

// BitmapState says what a Bitmap is good for.
type BitmapState struct {
	// Enabled: what is written is marked.
	Enabled bool
	// Persistent: it is to be kept when the node is closed.
	Persistent bool
	// Inconsistent: it was in use when its user died, and can only be removed.
	Inconsistent bool
	// ReadOnly: it is stored where nothing can be written.
	ReadOnly bool
}

// Bitmaps are the bitmaps of one node.
type Bitmaps struct {
	// Immutable.
	size func() int64 // of the node, in bytes

	// Guarded by mu.
	mu        sync.Mutex
	all       []*Bitmap // the newest first
	sizeBytes int64     // that the sets are made for
	memory    int64     // bytes that may still be taken

	// Safe from anywhere.
	any atomic.Bool // there has been a bitmap
}

const (
	// BitmapNameMax is the longest name, in bytes, as QEMU has it.
	BitmapNameMax = 1023
	// GranularityBitsMin and GranularityBitsMax bound how much one bit stands for, as in QEMU.
	GranularityBitsMin, GranularityBitsMax = 9, 31
	// bitmapNumbersMax bounds one bitmap to the 512 MiB of bits that QEMU can store. In memory QEMU has no bound.
	bitmapNumbersMax = int64(512<<20) * 8
	// bitmapMemoryMax is what all bitmaps of a node may take up, in bytes.
	bitmapMemoryMax = 1 << 30
)

// NewBitmaps returns the bitmaps, none so far, of a node of a size.
func NewBitmaps(size func() int64) *Bitmaps {
	return &Bitmaps{size: size, sizeBytes: size(), memory: bitmapMemoryMax}
}

// Name returns the name. Safe from anywhere.
func (b *Bitmap) Name() string { return b.name }

// GranularityBits says how much one bit stands for. Safe from anywhere.
func (b *Bitmap) GranularityBits() uint { return b.granularityBits }

// numbers is how many bits a disk needs.
func numbers(sizeBytes int64, granularityBits uint) int64 {
	n := sizeBytes >> granularityBits
	if n<<granularityBits < sizeBytes {
		n++
	}
	return n
}

// fit follows the size of the node: what is new is not marked. l.mu is held.
func (l *Bitmaps) fit() {
	size := l.size()
	if size == l.sizeBytes {
		return
	}
	l.sizeBytes = size
	for _, b := range l.all {
		if b.state.Inconsistent {
			continue
		}
		n := numbers(size, b.granularityBits)
		if n > bitmapNumbersMax { // it was made for a smaller disk: no part of it may be missed
			b.set.drop()
			b.set.all, b.set.length, b.set.count = true, n, n
			continue
		}
		b.set.resize(n)
	}
}

// Fit follows a new size of the node at once. Safe from anywhere.
func (l *Bitmaps) Fit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fit()
}

// Mark marks a range in all bitmaps that are enabled. Safe from anywhere.
func (l *Bitmaps) Mark(r Range) {
	if r.Length <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fit()
	for _, b := range l.all {
		if b.state.Enabled && !b.state.Inconsistent {
			b.mark(r)
		}
	}
}

// mark marks a range. list.mu is held.
func (b *Bitmap) mark(r Range) {
	from, end := b.granules(r)
	b.set.set(from, end)
	for _, s := range b.since {
		s.set(from, end)
	}
}

// granules are the numbers of what a range touches.
func (b *Bitmap) granules(r Range) (from, end int64) {
	return r.Offset >> b.granularityBits, numbers(r.End(), b.granularityBits)
}

// Add adds a bitmap in which nothing is marked.
func (l *Bitmaps) Add(name string, granularityBits uint, state BitmapState) (*Bitmap, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fit()
	n := numbers(l.sizeBytes, granularityBits)
	switch {
	case name == "":
		return nil, fmt.Errorf("Bitmap name cannot be empty")
	case len(name) > BitmapNameMax:
		return nil, fmt.Errorf("Bitmap name too long: %s", name)
	case l.find(name) != nil:
		return nil, fmt.Errorf("Bitmap already exists: %s", name)
	case n > bitmapNumbersMax && !state.Inconsistent:
		return nil, fmt.Errorf("Too much space will be occupied by the bitmap. Use larger granularity")
	}
	b := &Bitmap{list: l, name: name, granularityBits: granularityBits, state: state}
	b.set = bitSet{length: n, memory: &l.memory}
	if state.Inconsistent {
		b.set.length = 0
	}
	l.all = append([]*Bitmap{b}, l.all...)
	l.any.Store(true)
	return b, nil
}

// Find returns the bitmap of a name, or nil. Safe from anywhere.
func (l *Bitmaps) Find(name string) *Bitmap {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.find(name)
}

// find is Find with l.mu held.
func (l *Bitmaps) find(name string) *Bitmap {
	for _, b := range l.all {
		if b.name == name {
			return b
		}
	}
	return nil
}

// All returns all bitmaps, the newest first. Safe from anywhere.
func (l *Bitmaps) All() []*Bitmap {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Bitmap(nil), l.all...)
}

// Bitmaps returns the bitmaps of n. Safe from anywhere.
func (n *Node) Bitmaps() *Bitmaps {
	for {
		if l := n.bitmaps.Load(); l != nil {
			return l
		}
		n.bitmaps.CompareAndSwap(nil, NewBitmaps(n.Size))
	}
}

// AdoptBitmaps gives n the bitmaps that its driver has found, before n is used.
func (n *Node) AdoptBitmaps(l *Bitmaps) { n.bitmaps.Store(l) }

// dirtied marks what a request has changed, or has tried to.
func (n *Node) dirtied(r Range) {
	if l := n.bitmaps.Load(); l != nil && l.any.Load() {
		l.Mark(r)
	}
}

// refitted has the bitmaps of n follow its size.
func (n *Node) refitted() {
	if l := n.bitmaps.Load(); l != nil {
		l.Fit()
	}
}

// BitmapKeeper keeps persistent bitmaps when its node is closed. Default: there are none.
type BitmapKeeper interface {
	// MayKeep returns why a bitmap cannot be kept that is to be made.
	MayKeep(t *Task, name string, granularityBits uint) error
	// ChangeKept comes before kept bitmaps are changed: what is on storage is not to be trusted any more when it returns.
	ChangeKept(t *Task) error
	// DropKept takes a bitmap off the storage, where it need not be.
	DropKept(t *Task, name string) error
}
