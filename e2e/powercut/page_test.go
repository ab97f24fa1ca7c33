package main

import (
	"bytes"
	"testing"
)

// Goal: the check finds what a cut can do to an image, and nothing else; method: an image with all writes of a history, then with one
// page as it was before its last write, torn, swapped, and with later writes.
func TestVerifyFindsLostWrites(t *testing.T) {
	const seed, batches = 7, 400
	image := make([]byte, imagePages*pageBytes)
	at := func(page uint64) []byte { return image[page*pageBytes : (page+1)*pageBytes] }
	h := newHistory(seed)
	var last, before write
	for range batches {
		writes, _ := h.batch()
		for _, w := range writes {
			fill(at(w.page), w)
		}
		last = writes[batch-1]
	}
	flushed := h.next - 1
	before = write{page: last.page, number: 1}
	expect := func(what string, want bool) {
		t.Helper()
		if _, err := verify(bytes.NewReader(image), seed, flushed); (err == nil) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	expect("as written", true)
	fill(at(last.page), before)
	expect("an older write", false)
	fill(at(last.page), last)
	fill(at(last.page)[2048:], before)
	expect("half an older write", false)
	fill(at(last.page), write{page: last.page, number: flushed + 5})
	fill(at(last.page)[512:1024], write{page: last.page, number: flushed + 9})
	expect("later writes", true)
	fill(at(last.page), write{page: last.page + 1, number: flushed + 5})
	expect("another page", false)
	clear(at(last.page))
	expect("nothing", false)
}
