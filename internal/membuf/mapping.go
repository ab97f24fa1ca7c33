package membuf

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// span is one mapping.
type span struct {
	start, end uintptr
}

// spanCompare orders spans by address for a search: it is 0 for the span that holds addr.
func spanCompare(s span, addr uintptr) int {
	switch {
	case s.end <= addr:
		return -1
	case s.start > addr:
		return 1
	}
	return 0
}

// Owns reports whether all bytes of b lie in memory of this pool, in use or not. An empty b does.
func (p *Pool) Owns(b []byte) bool {
	return p.OwnsRange(uintptr(unsafe.Pointer(unsafe.SliceData(b))), len(b))
}

// OwnsRange is Owns for n bytes at an address, as an entry of a submission queue holds them.
//
// It takes no lock: the list of mappings is never changed, only replaced.
func (p *Pool) OwnsRange(addr uintptr, n int) bool {
	if n == 0 {
		return true
	}
	spans := p.spans.Load()
	if spans == nil {
		return false
	}
	i, found := slices.BinarySearchFunc(*spans, addr, spanCompare)
	return found && uintptr(n) <= (*spans)[i].end-addr
}

// mapLocked maps n bytes. The caller holds p.mu.
//
// Without memory it panics, as the Go heap does: callers bound what they ask for, and none
// could go on.
func (p *Pool) mapLocked(n int) unsafe.Pointer {
	addr, err := unix.MmapPtr(-1, 0, nil, uintptr(n), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		panic(fmt.Errorf("membuf: map %d bytes: %w", n, err))
	}
	p.addSpan(span{uintptr(addr), uintptr(addr) + uintptr(n)})
	p.mapped += int64(n)
	p.maps++
	return addr
}

// forgetLocked takes a mapping out of the books. It comes before unmap, because from then on the
// kernel may give the same address to the next mapLocked. The caller holds p.mu.
func (p *Pool) forgetLocked(addr unsafe.Pointer, n int) {
	p.dropSpan(uintptr(addr))
	p.mapped -= int64(n)
	p.unmaps++
}

// unmap gives a mapping back to the kernel.
func unmap(addr unsafe.Pointer, n int) {
	if err := unix.MunmapPtr(addr, uintptr(n)); err != nil {
		panic(fmt.Errorf("membuf: unmap %d bytes at %p: %w", n, addr, err))
	}
}

func (p *Pool) addSpan(s span) {
	var old []span
	if spans := p.spans.Load(); spans != nil {
		old = *spans
	}
	i, _ := slices.BinarySearchFunc(old, s.start, spanCompare)
	spans := make([]span, 0, len(old)+1)
	spans = append(spans, old[:i]...)
	spans = append(spans, s)
	spans = append(spans, old[i:]...)
	p.spans.Store(&spans)
}

func (p *Pool) dropSpan(start uintptr) {
	old := *p.spans.Load()
	i, _ := slices.BinarySearchFunc(old, start, spanCompare)
	spans := make([]span, 0, len(old)-1)
	spans = append(spans, old[:i]...)
	spans = append(spans, old[i+1:]...)
	p.spans.Store(&spans)
}

// unmapSpan unmaps by address alone, for which the call without a pointer is the honest one.
func unmapSpan(s span) {
	if _, _, errno := unix.Syscall(unix.SYS_MUNMAP, s.start, s.end-s.start, 0); errno != 0 {
		panic(fmt.Errorf("membuf: unmap %d bytes at %#x: %w", s.end-s.start, s.start, errno))
	}
}

// noHugePages keeps a slab in small pages: one buffer in use must not make the whole slab
// resident, nor one that goes cold split a huge page. A kernel without huge pages refuses, which is fine.
func noHugePages(addr unsafe.Pointer, n int) {
	_ = unix.Madvise(unsafe.Slice((*byte)(addr), n), unix.MADV_NOHUGEPAGE)
}

// kernelPage is the page size of the machine, a multiple of pageBytes.
var kernelPage = uintptr(os.Getpagesize())

// discard gives the pages of n bytes at addr back to the kernel and keeps the address. On a machine
// with pages larger than ours, pages shared with a neighbour stay.
func discard(addr unsafe.Pointer, n int) {
	head := -uintptr(addr) & (kernelPage - 1)
	if uintptr(n) < head+kernelPage {
		return
	}
	whole := (uintptr(n) - head) &^ (kernelPage - 1)
	b := unsafe.Slice((*byte)(unsafe.Add(addr, head)), whole)
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		panic(fmt.Errorf("membuf: discard %d bytes at %p: %w", n, addr, err))
	}
}
