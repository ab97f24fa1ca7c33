package membuf

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"nbd-dataplane/internal/check"
)

// Pool hands out buffers to anybody and keeps a bounded amount of idle ones.
type Pool struct {
	// Immutable.
	cachedMax int64

	// Safe from anywhere.
	spans    atomic.Pointer[[]span] // all mappings by address; replaced under mu
	trimming atomic.Bool
	ledger   ledger

	// Guarded by trimming: used by the one that has set it.
	victims []unsafe.Pointer

	mu sync.Mutex
	// Guarded by mu.
	free   [classes]freeLists
	inUse  int64 // bytes out, in classes, with what the caches keep
	out    int64 // buffers out
	cached int64 // bytes of the warm ones
	mapped int64
	maps   uint64
	unmaps uint64
	trims  uint64
}

// freeLists holds the idle buffers of one class, each list a stack.
type freeLists struct {
	warm []unsafe.Pointer // have their pages; the last is the warmest
	cold []unsafe.Pointer // address space only; carved classes alone
}

// NewPool returns a pool that keeps at most cachedMax bytes of idle buffers. What comes back
// beyond that goes to the kernel, together with a quarter of what was kept, so that not every
// following Put is a system call.
func NewPool(cachedMax int64) *Pool {
	return &Pool{cachedMax: cachedMax}
}

// Get returns a buffer of n bytes, aligned to 4096, with undefined contents. Its capacity is the size of its class.
// The buffer of no bytes is nil.
func (p *Pool) Get(n int) []byte {
	if n == 0 {
		return nil
	}
	c := sizeClass(n)
	size := wholePages(n)
	if c < classes {
		size = classBytes(c)
	}
	p.mu.Lock()
	addr := p.takeLocked(c, size)
	p.mu.Unlock()
	return p.lend(addr, n, size)
}

// Put takes back what Get has returned, perhaps shortened at its end. It ignores nil.
func (p *Pool) Put(b []byte) {
	if b == nil {
		return
	}
	c := p.takeBack(b)
	addr := unsafe.Pointer(unsafe.SliceData(b))
	if c == classes {
		p.putLarge(addr, cap(b))
		return
	}
	p.mu.Lock()
	p.giveLocked(c, addr)
	over := p.cached > p.cachedMax
	p.mu.Unlock()
	if over {
		p.trim(c)
	}
}

// putLarge gives back a buffer larger than any class.
func (p *Pool) putLarge(addr unsafe.Pointer, size int) {
	p.mu.Lock()
	p.inUse -= int64(size)
	p.out--
	p.forgetLocked(addr, size)
	p.mu.Unlock()
	unmap(addr, size)
}

// takeLocked finds a buffer of class c: a warm one, a cold one, or a new one of size bytes.
func (p *Pool) takeLocked(c, size int) unsafe.Pointer {
	p.inUse += int64(size)
	p.out++
	if c == classes {
		return p.mapLocked(size)
	}
	f := &p.free[c]
	if addr, ok := pop(&f.warm); ok {
		p.cached -= int64(size)
		return addr
	}
	if len(f.cold) == 0 {
		if c >= slabClasses {
			return p.mapLocked(size)
		}
		p.carveLocked(f, size)
	}
	addr, _ := pop(&f.cold)
	return addr
}

// carveLocked fills the cold list with the buffers of a new slab, the lowest on top.
func (p *Pool) carveLocked(f *freeLists, size int) {
	slab := p.mapLocked(slabBytes)
	noHugePages(slab, slabBytes)
	for off := slabBytes - size; off >= 0; off -= size {
		f.cold = append(f.cold, unsafe.Add(slab, off))
	}
}

// giveLocked makes a buffer of class c idle.
func (p *Pool) giveLocked(c int, addr unsafe.Pointer) {
	size := int64(classBytes(c))
	p.free[c].warm = append(p.free[c].warm, addr)
	p.cached += size
	p.inUse -= size
	p.out--
}

// pop takes the top of a stack.
func pop(stack *[]unsafe.Pointer) (unsafe.Pointer, bool) {
	s := *stack
	if len(s) == 0 {
		return nil, false
	}
	addr := s[len(s)-1]
	*stack = s[:len(s)-1]
	return addr, true
}

// lend makes the slice for a buffer that leaves the package.
func (p *Pool) lend(addr unsafe.Pointer, n, size int) []byte {
	b := unsafe.Slice((*byte)(addr), size)
	if check.Enabled {
		p.ledger.lent(b)
	}
	return b[:n]
}

// takeBack checks a buffer that comes back and returns its class.
func (p *Pool) takeBack(b []byte) int {
	c, ok := capClass(cap(b))
	if !ok {
		check.Invariant(false, "membuf: a buffer of capacity %d was put, no pool makes such", cap(b))
	}
	if check.Enabled {
		full := b[:cap(b)]
		check.Invariant(p.Owns(full), "membuf: foreign memory at %p was put", unsafe.SliceData(b))
		p.ledger.returned(full)
	}
	return c
}

// Close unmaps everything. It fails, and leaves the memory alone, while buffers are out or kept by a Cache.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.out != 0 {
		return fmt.Errorf("membuf: close: %d buffers (%d bytes) are still out", p.out, p.inUse)
	}
	if spans := p.spans.Swap(nil); spans != nil {
		for _, s := range *spans {
			unmapSpan(s)
		}
		p.unmaps += uint64(len(*spans))
	}
	p.free = [classes]freeLists{}
	p.cached, p.mapped = 0, 0
	return nil
}
