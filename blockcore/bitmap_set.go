package blockcore

import (
	"encoding/binary"
	"math/bits"
)

// bitSet is a set of numbers below length. Memory is taken for what is set, page by page. Where there is none left a page is all ones: of
// a bitmap of what has changed that is still true.
//
// Owned by the Bitmaps that it is in, under its mu.
type bitSet struct {
	length int64
	pages  []*bitPage // nil = nothing is set
	count  int64      // numbers in the set
	all    bool       // everything is set, and pages is nil
	memory *int64     // bytes that may still be taken, for all bitmaps of a node
}

const (
	pageNumbers = 1 << 15
	pageBytes   = pageNumbers / 8
	pageWords   = pageBytes / 8
	entryBytes  = 8 // of bitSet.pages
)

// bitPage is a part of a bitSet.
type bitPage [pageWords]uint64

// fullPage stands for all pages of which everything is set. It is never changed.
var fullPage = func() *bitPage {
	p := &bitPage{}
	for k := range p {
		p[k] = ^uint64(0)
	}
	return p
}()

// take reports whether there are n more bytes, and takes them.
func (s *bitSet) take(n int64) bool {
	if *s.memory < n {
		return false
	}
	*s.memory -= n
	return true
}

func (s *bitSet) pageCount() int64 { return (s.length + pageNumbers - 1) / pageNumbers }

// inPage is how many numbers a page stands for: the last one for fewer.
func (s *bitSet) inPage(k int64) int64 { return min(s.length-k*pageNumbers, pageNumbers) }

// set adds the numbers from to end-1.
func (s *bitSet) set(from, end int64) {
	end = min(end, s.length)
	if from >= end || !s.open() {
		return
	}
	for from < end {
		k := from / pageNumbers
		upto := min(end, (k+1)*pageNumbers)
		first, last := from-k*pageNumbers, upto-k*pageNumbers
		switch p := s.pages[k]; {
		case p == fullPage:
		case last-first == s.inPage(k):
			s.fill(k)
		default:
			if p = s.page(k); p != fullPage {
				s.count += p.set(first, last)
			}
		}
		from = upto
	}
}

// open makes the table of pages. It reports false when everything is set: there is no table then.
func (s *bitSet) open() bool {
	if s.all || s.pages != nil {
		return !s.all
	}
	if !s.take(s.pageCount() * entryBytes) {
		s.all, s.count = true, s.length
		return false
	}
	s.pages = make([]*bitPage, s.pageCount())
	return true
}

// page returns a page to be changed; fullPage if there is no memory for one.
func (s *bitSet) page(k int64) *bitPage {
	if s.pages[k] == nil {
		if !s.take(pageBytes) {
			s.fill(k)
			return fullPage
		}
		s.pages[k] = &bitPage{}
	}
	return s.pages[k]
}

// fill sets everything in a page that is not full.
func (s *bitSet) fill(k int64) {
	s.count += s.inPage(k)
	if p := s.pages[k]; p != nil {
		s.count -= p.count()
		*s.memory += pageBytes
	}
	s.pages[k] = fullPage
}

func (p *bitPage) count() (n int64) {
	for _, w := range p {
		n += int64(bits.OnesCount64(w))
	}
	return n
}

// set adds numbers and returns how many are new.
func (p *bitPage) set(from, end int64) (added int64) {
	for from < end {
		k := from / 64
		upto := min(end, (k+1)*64)
		mask := ^uint64(0) >> (64 - (upto - from)) << (from % 64)
		added += int64(bits.OnesCount64(mask &^ p[k]))
		p[k] |= mask
		from = upto
	}
	return added
}

// next returns the first number from from on that is in the set, or is not; length = there is none.
func (s *bitSet) next(from int64, set bool) int64 {
	if from >= s.length || s.pages == nil {
		if s.all == set {
			return min(from, s.length)
		}
		return s.length
	}
	for k := from / pageNumbers; k < int64(len(s.pages)); k++ {
		if n := s.pages[k].next(max(from-k*pageNumbers, 0), set); n < pageNumbers {
			return min(k*pageNumbers+n, s.length)
		}
	}
	return s.length
}

// next is that of one page; pageNumbers = there is none.
func (p *bitPage) next(from int64, set bool) int64 {
	if p == nil || p == fullPage {
		if set == (p != nil) {
			return from
		}
		return pageNumbers
	}
	mask := ^uint64(0) << (from % 64)
	for k := from / 64; k < pageWords; k++ {
		w := p[k]
		if !set {
			w = ^w
		}
		if w &= mask; w != 0 {
			return k*64 + int64(bits.TrailingZeros64(w))
		}
		mask = ^uint64(0)
	}
	return pageNumbers
}

// drop empties the set and gives its memory back.
func (s *bitSet) drop() {
	if s.pages != nil {
		*s.memory += int64(len(s.pages)) * entryBytes
	}
	for _, p := range s.pages {
		if p != nil && p != fullPage {
			*s.memory += pageBytes
		}
	}
	s.pages, s.count, s.all = nil, 0, false
}

// resize changes the length: what is new is not set.
func (s *bitSet) resize(length int64) {
	if length == s.length {
		return
	}
	old := bitSet{length: s.length, pages: s.pages, count: s.count, all: s.all, memory: s.memory}
	*s = bitSet{length: length, memory: s.memory}
	for from := old.next(0, true); from < min(old.length, length); {
		end := old.next(from, false)
		s.set(from, end)
		from = old.next(end, true)
	}
	old.drop()
}

// read writes numbers as the image formats have them, one bit each and the lowest first, to p, from the number first on, a multiple of 64.
// It reports whether none is set, and whether all are.
func (s *bitSet) read(p []byte, first int64) (none, all bool) {
	end := min(first+int64(len(p))*8, s.length)
	if s.next(first, true) >= end {
		return true, false
	}
	if s.next(first, false) >= end {
		return false, true
	}
	clear(p)
	for from := s.next(first, true); from < end; {
		to := min(s.next(from, false), end)
		setBits(p, from-first, to-first)
		from = s.next(to, true)
	}
	return false, false
}

// setBits sets bits of p.
func setBits(p []byte, from, end int64) {
	for ; from < end && from%8 != 0; from++ {
		p[from/8] |= 1 << (from % 8)
	}
	for ; end-from >= 8; from += 8 {
		p[from/8] = 0xff
	}
	for ; from < end; from++ {
		p[from/8] |= 1 << (from % 8)
	}
}

// write undoes read: it adds what is set in p, whose length is a multiple of 8.
func (s *bitSet) write(p []byte, first int64) {
	for k := 0; k+8 <= len(p); k += 8 {
		w := binary.LittleEndian.Uint64(p[k:])
		for base := first + int64(k)*8; w != 0; {
			from := bits.TrailingZeros64(w)
			run := bits.TrailingZeros64(^(w >> from))
			s.set(base+int64(from), base+int64(from+run))
			if from+run >= 64 {
				break
			}
			w = w >> (from + run) << (from + run)
		}
	}
}
