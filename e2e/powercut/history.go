package main

import "math/rand/v2"

const (
	pageBytes  = 4096
	imagePages = 2048
	// batch is how many writes are under way at once. Their pages differ: the order of two writes of one page that are under way
	// together is not promised.
	batch = 32
	// flushOdds is the number of batches to a FLUSH, on the average: so many that pages are written again between two.
	flushOdds = 150
)

// history is the sequence of batches that a seed stands for.
type history struct {
	random *rand.Rand
	next   uint64 // number of the first write of the next batch; the first of all is 1
}

// write is one WRITE of a page.
type write struct {
	number uint64
	page   uint64
}

func newHistory(seed uint64) *history {
	return &history{random: rand.New(rand.NewPCG(seed, 0)), next: 1}
}

// batch returns the writes to be made now, and whether a FLUSH goes before them that covers all earlier ones.
func (h *history) batch() (writes [batch]write, flush bool) {
	flush = h.random.IntN(flushOdds) == 0
	taken := map[uint64]bool{}
	for i := range writes {
		page := h.random.Uint64N(imagePages)
		for taken[page] {
			page = h.random.Uint64N(imagePages)
		}
		taken[page] = true
		writes[i] = write{number: h.next, page: page}
		h.next++
	}
	return writes, flush
}
