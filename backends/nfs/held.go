package nfs

import (
	"math/bits"
	"slices"

	"nbd-dataplane/blockcore"
	"nbd-dataplane/internal/membuf"
)

// pageBytes is the unit in which data is held.
const pageBytes = 4096

// page is held data: what a server has acknowledged and may still lose, when it is restarted before a COMMIT. Owned by the context.
type page struct {
	index    int64 // of the page in the file
	data     []byte
	mask     *[pageBytes / 64]uint64 // which bytes are held; nil = all
	verifier uint64                  // of the run of the server that has them all
	stale    bool                    // there is none: they have to be written again
	seq      uint64                  // of the last write
	begun    uint64                  // of the first that a FLUSH may still be owed, even if it was written over since
	next     *page                   // in the order of seq
	prev     *page
}

// held is a copy of all that a restart of the server would lose, the newest of each byte. Reads look into it first, so that
// what was written is read even if the server has lost it.
//
// INVARIANT: a byte that was acknowledged by a WRITE and is on no stable storage is held. Owned by the context.
type held struct {
	pages pageTable
	first *page // the oldest
	last  *page
	seq   uint64 // of the newest write
	stale int    // pages that have to be written again
	// gone counts pages that were given up, or are the server's again, after it may have shown the file without them: a READ that was under way may
	// have seen that.
	gone  uint64
	free  []*page
	spare [][]byte // memory of pages that were dropped, for the next ones: see idle
}

// bytes is how much memory the data takes.
func (h *held) bytes() int64 { return int64(h.pages.count) * pageBytes }

// pagesOf is how many pages a range touches.
func pagesOf(off, length int64) int64 {
	if length == 0 {
		return 0
	}
	return (off+length-1)/pageBytes - off/pageBytes + 1
}

// pieces calls do for each page that p touches: at is where in the page the piece begins.
func pieces(off int64, p []byte, do func(index int64, at int, piece []byte)) {
	for len(p) > 0 {
		at := int(off % pageBytes)
		n := min(pageBytes-at, len(p))
		do(off/pageBytes, at, p[:n])
		p, off = p[n:], off+int64(n)
	}
}

// put holds what was just written, by a server in that run.
func (h *held) put(buffers *membuf.Cache, off int64, p []byte, verifier uint64) {
	h.seq++
	for len(p) > 0 {
		at := int(off % pageBytes)
		n := min(pageBytes-at, len(p))
		h.putPiece(buffers, off/pageBytes, at, p[:n], verifier)
		p, off = p[n:], off+int64(n)
	}
}

func (h *held) putPiece(buffers *membuf.Cache, index int64, at int, p []byte, verifier uint64) {
	g := h.pages.at(index)
	if g == nil {
		g = h.newPage(buffers, index)
		g.verifier, g.begun = verifier, h.seq
		if len(p) < pageBytes {
			g.mask = new([pageBytes / 64]uint64)
		}
	} else {
		h.unlink(g)
	}
	copy(g.data[at:], p)
	switch {
	case len(p) == pageBytes:
		// What was there before may be lost, and a FLUSH wait for it: it is owed this instead.
		h.setStale(g, g.stale || g.verifier != verifier)
		g.mask, g.verifier = nil, verifier
	case g.verifier != verifier:
		h.setStale(g, true) // no run of the server has all of it
		g.cover(at, len(p))
	default:
		g.cover(at, len(p))
	}
	g.seq = h.seq
	h.link(g)
}

func (h *held) newPage(buffers *membuf.Cache, index int64) *page {
	var g *page
	if last := len(h.free) - 1; last >= 0 {
		g = h.free[last]
		h.free = h.free[:last]
	} else {
		g = &page{}
	}
	g.index, g.data = index, h.memory(buffers)
	h.pages.put(g)
	return g
}

// memory of a page.
func (h *held) memory(buffers *membuf.Cache) []byte {
	if last := len(h.spare) - 1; last >= 0 {
		p := h.spare[last]
		h.spare = h.spare[:last]
		return p
	}
	return buffers.Get(pageBytes)
}

const (
	// pagesKeptMax bounds the pages without data that are kept for the next ones.
	pagesKeptMax = heldBytesMax / pageBytes
	// spareMax bounds the memory that is kept: what a COMMIT ahead of need frees at once is needed again at once, and the pool would give it to the
	// kernel and get it back page by page.
	spareMax = heldBytesMax / aheadPart / pageBytes
)

// idle gives the memory back that is kept for the next writes.
func (h *held) idle(buffers *membuf.Cache) {
	for _, p := range h.spare {
		buffers.Put(p)
	}
	h.spare = nil
}

// drop gives a page up, which was unlinked.
func (h *held) drop(buffers *membuf.Cache, g *page) {
	h.setStale(g, false)
	h.pages.drop(g.index)
	if len(h.spare) < spareMax {
		h.spare = append(h.spare, g.data)
	} else {
		buffers.Put(g.data)
	}
	*g = page{}
	if len(h.free) < pagesKeptMax {
		h.free = append(h.free, g)
	}
}

// remove is drop for a page that is linked.
func (h *held) remove(buffers *membuf.Cache, g *page) {
	h.unlink(g)
	h.drop(buffers, g)
}

func (h *held) setStale(g *page, stale bool) {
	if g.stale == stale {
		return
	}
	g.stale = stale
	if stale {
		h.stale++
	} else {
		h.stale--
	}
}

func (h *held) link(g *page) {
	g.prev, g.next = h.last, nil
	if h.last == nil {
		h.first = g
	} else {
		h.last.next = g
	}
	h.last = g
}

func (h *held) unlink(g *page) {
	if g.prev == nil {
		h.first = g.next
	} else {
		g.prev.next = g.next
	}
	if g.next == nil {
		h.last = g.prev
	} else {
		g.next.prev = g.prev
	}
	g.prev, g.next = nil, nil
}

// overwrite takes over what has gone to stable storage: where older data is held it must not come back.
func (h *held) overwrite(buffers *membuf.Cache, off int64, p []byte, verifier uint64) {
	if h.pages.count == 0 {
		return
	}
	pieces(off, p, func(index int64, at int, piece []byte) {
		g := h.pages.at(index)
		switch {
		case g == nil:
		case len(piece) == pageBytes:
			if g.stale || g.verifier != verifier {
				h.gone++
			}
			h.remove(buffers, g)
		default:
			g.each(at, at+len(piece), func(from, to int) { copy(g.data[from:to], piece[from-at:]) })
		}
	})
}

// overlay puts what is held over what was read.
func (h *held) overlay(p []byte, off int64) {
	if h.pages.count == 0 {
		return
	}
	pieces(off, p, func(index int64, at int, piece []byte) {
		if g := h.pages.at(index); g != nil {
			g.each(at, at+len(piece), func(from, to int) { copy(piece[from-at:to-at], g.data[from:to]) })
		}
	})
}

// covers reports whether all of a range is held.
func (h *held) covers(off, length int64) bool {
	if h.pages.count == 0 {
		return length == 0
	}
	for length > 0 {
		at := int(off % pageBytes)
		n := int(min(pageBytes-int64(at), length))
		if g := h.pages.at(off / pageBytes); g == nil || !g.has(at, n) {
			return false
		}
		off, length = off+int64(n), length-int64(n)
	}
	return true
}

// committed drops what a COMMIT has brought to stable storage: all that was written before it, up to upTo, by the run of the server that has answered it. What
// another run had is stale, and so is a page that has some of that and something newer.
func (h *held) committed(buffers *membuf.Cache, upTo, verifier uint64) {
	for g := h.first; g != nil; {
		next := g.next
		switch {
		case g.begun > upTo:
		case g.stale || g.verifier != verifier:
			h.setStale(g, true)
		case g.seq <= upTo:
			h.remove(buffers, g)
		default:
			g.begun = upTo + 1
		}
		g = next
	}
}

// doubt has everything written again: nobody knows what is on stable storage.
func (h *held) doubt() {
	for g := h.first; g != nil; g = g.next {
		h.setStale(g, true)
	}
}

// doubtRange is doubt for some of it.
func (h *held) doubtRange(off, length int64) {
	for index := off / pageBytes; index*pageBytes < off+length; index++ {
		if g := h.pages.at(index); g != nil {
			h.setStale(g, true)
		}
	}
}

// dropAll gives everything up.
func (h *held) dropAll(buffers *membuf.Cache) {
	for h.first != nil {
		h.remove(buffers, h.first)
	}
}

// cut drops what is behind the end of a file.
func (h *held) cut(buffers *membuf.Cache, sizeBytes int64) {
	for g := h.first; g != nil; {
		next := g.next
		if g.index*pageBytes >= sizeBytes {
			h.remove(buffers, g)
		}
		g = next
	}
}

// staleRuns are the ranges of stale pages, neighbours together up to most bytes, in the order of the file.
func (h *held) staleRuns(most int64) []blockcore.Range {
	var all []int64
	for g := h.first; g != nil; g = g.next {
		if g.stale {
			all = append(all, g.index)
		}
	}
	slices.Sort(all)
	var runs []blockcore.Range
	for _, index := range all {
		off := index * pageBytes
		if last := len(runs) - 1; last >= 0 && runs[last].End() == off && runs[last].Length+pageBytes <= most {
			runs[last].Length += pageBytes
			continue
		}
		runs = append(runs, blockcore.Range{Offset: off, Length: pageBytes})
	}
	return runs
}

// cover adds bytes to those that are held.
func (g *page) cover(at, n int) {
	if g.mask == nil {
		return
	}
	for i := at; i < at+n; {
		word, bit := i/64, i%64
		take := min(64-bit, at+n-i)
		g.mask[word] |= (^uint64(0) >> (64 - take)) << bit
		i += take
	}
	for _, word := range g.mask {
		if word != ^uint64(0) {
			return
		}
	}
	g.mask = nil
}

// has reports whether bytes are held.
func (g *page) has(at, n int) bool {
	if g.mask == nil {
		return true
	}
	for i := at; i < at+n; {
		word, bit := i/64, i%64
		take := min(64-bit, at+n-i)
		want := (^uint64(0) >> (64 - take)) << bit
		if g.mask[word]&want != want {
			return false
		}
		i += take
	}
	return true
}

// each calls do for the runs of bytes between from and to that are held.
func (g *page) each(from, to int, do func(from, to int)) {
	if g.mask == nil {
		do(from, to)
		return
	}
	for from < to {
		from = g.seek(from, to, true)
		if from == to {
			return
		}
		end := g.seek(from, to, false)
		do(from, end)
		from = end
	}
}

// seek returns the first byte from at on, before end, that is held, or is not.
func (g *page) seek(at, end int, isHeld bool) int {
	for at < end {
		word := g.mask[at/64]
		if !isHeld {
			word = ^word
		}
		word >>= at % 64
		if word != 0 {
			return min(at+bits.TrailingZeros64(word), end)
		}
		at += 64 - at%64
	}
	return end
}
