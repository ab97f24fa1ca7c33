package membuf

import (
	"cmp"
	"slices"
	"unsafe"
)

// trimBatch bounds what one hold of the lock picks.
const trimBatch = 256

// trim gives idle memory back until only three quarters of what may be kept are left.
// The class that has just been put comes last: a pool full of the sizes of an hour ago must not make
// each request of today's size go through mmap.
//
// One trimmer at a time is enough; who comes second has nothing left to do.
func (p *Pool) trim(current int) {
	if !p.trimming.CompareAndSwap(false, true) {
		return
	}
	defer p.trimming.Store(false)
	keep := p.cachedMax - p.cachedMax/4
	for c := classes - 1; c >= 0; c-- {
		if c != current {
			p.trimClass(c, keep)
		}
	}
	p.trimClass(current, keep)
}

// trimClass gives back idle buffers of class c, the coolest first, until keep bytes are left in the pool.
// The kernel works without the lock held: freeing 64 MiB takes it milliseconds, in which other
// loops want their buffers.
func (p *Pool) trimClass(c int, keep int64) {
	for p.pickVictims(c, keep) {
		if c >= slabClasses {
			for _, addr := range p.victims {
				unmap(addr, classBytes(c))
			}
			continue
		}
		discardRuns(p.victims, classBytes(c))
		p.mu.Lock()
		p.free[c].cold = append(p.free[c].cold, p.victims...)
		p.mu.Unlock()
	}
}

// pickVictims moves warm buffers of class c from the bottom of their stack to p.victims. False means
// that nothing is to be given back.
func (p *Pool) pickVictims(c int, keep int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := int64(classBytes(c))
	f := &p.free[c]
	n := min((p.cached-keep+size-1)/size, int64(len(f.warm)), trimBatch)
	if n <= 0 {
		return false
	}
	p.victims = append(p.victims[:0], f.warm[:n]...)
	f.warm = slices.Delete(f.warm, 0, int(n))
	p.cached -= n * size
	p.trims += uint64(n)
	if c >= slabClasses {
		for _, addr := range p.victims {
			p.forgetLocked(addr, int(size))
		}
	}
	return true
}

// discardRuns discards buffers of size bytes, neighbours in one call. They may belong to two slabs
// that lie side by side, which is the same to the kernel.
func discardRuns(bufs []unsafe.Pointer, size int) {
	slices.SortFunc(bufs, func(a, b unsafe.Pointer) int { return cmp.Compare(uintptr(a), uintptr(b)) })
	for len(bufs) > 0 {
		n := 1
		for n < len(bufs) && uintptr(bufs[n]) == uintptr(bufs[0])+uintptr(n*size) {
			n++
		}
		discard(bufs[0], n*size)
		bufs = bufs[n:]
	}
}
