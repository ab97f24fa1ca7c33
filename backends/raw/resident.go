package raw

import (
	"math/bits"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// regionBytes is what one mincore(2) is asked about: the pages of one page table, 2 us.
	regionBytes = 2 << 20
	// residentFor is how long its answer is believed. Pages that are in use leave the page cache when memory is short only;
	// if one does within this time, a copy waits for the disk, and the pace notices.
	residentFor = time.Second
	// pageBytesMin is the smallest page of any processor.
	pageBytesMin = 4 << 10
)

// pageShift is the logarithm of the page size.
var pageShift = bits.TrailingZeros64(uint64(pageSize))

// pageSet is a set of the pages of a region, by number in the region.
type pageSet [regionBytes / pageBytesMin / 64]uint64

func (s *pageSet) has(n int64) bool { return s[n>>6]&(1<<(n&63)) != 0 }
func (s *pageSet) add(n int64)      { s[n>>6] |= 1 << (n & 63) }

// region is what is known of the pages of a part of a view.
type region struct {
	// Owned by the context.
	until    time.Duration // resident is believed until then
	resident pageSet
	epoch    uint64  // of stored
	stored   pageSet // stored to in this epoch
}

// place is where a page of a view is: the region, and the number in it.
func (w *view) place(page int64) (*region, int64) {
	perRegion := int64(regionBytes) >> pageShift
	return &w.regions[page/perRegion], page % perRegion
}

// pages are the first and the last page of the view that n bytes at pos of the file touch.
func (w *view) pages(pos int64, n int) (first, last int64) {
	return (pos - w.start) >> pageShift, (pos - w.start + int64(n) - 1) >> pageShift
}

// residency asks the kernel, and remembers for a while, which pages of the views of a file are in memory.
type residency struct {
	// Immutable.
	fd    int
	lasts time.Duration

	// Owned by the context.
	answer [regionBytes / pageBytesMin]byte
}

// holds reports whether all that n bytes at pos touch was in memory not long ago, so that touching it waits for no disk.
func (y *residency) holds(w *view, pos int64, n int, now time.Duration) bool {
	first, last := w.pages(pos, n)
	for page := first; page <= last; page++ {
		r, number := w.place(page)
		if now >= r.until {
			y.ask(w, r, page-number, now)
		}
		if !r.resident.has(number) {
			return false
		}
	}
	return true
}

// ask fills r, which begins with the page first of w.
//
// Pages that the file does not fill to their end are left out: what is stored behind the end is lost without a word, and is
// read as zeroes. Whoever cuts the file off inside of a page is so noticed when the answer has expired.
func (y *residency) ask(w *view, r *region, first int64, now time.Duration) {
	r.until, r.resident = now+y.lasts, pageSet{}
	part := w.memory[first<<pageShift:]
	part = part[:min(len(part), regionBytes)]
	var st unix.Stat_t
	if unix.Fstat(y.fd, &st) != nil {
		return
	}
	_, _, errno := unix.RawSyscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(part))),
		uintptr(len(part)), uintptr(unsafe.Pointer(&y.answer[0])))
	if errno != 0 {
		return
	}
	whole := (st.Size-w.start)>>pageShift - first
	for n := range min(int64(len(part))>>pageShift, whole) {
		if y.answer[n]&1 != 0 {
			r.resident.add(n)
		}
	}
}

// wrote notes that n bytes at pos were written into the page cache: the pages that they cover whole are in it.
func (w *view) wrote(pos int64, n int, now time.Duration) {
	first := (pos - w.start + pageSize - 1) >> pageShift
	for page := first; page < (pos-w.start+int64(n))>>pageShift; page++ {
		if r, number := w.place(page); now < r.until {
			r.resident.add(number)
		}
	}
}

// forget drops what is known of n bytes at pos.
func (w *view) forget(pos, n int64) {
	perRegion := int64(regionBytes)
	for at := (pos - w.start) / perRegion * perRegion; at < pos-w.start+n; at += perRegion {
		w.regions[at/perRegion].until = 0
	}
}
