package main

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A page holds its own number and that of the write, again and again, so that any mixture of two writes shows:
//
//	| page | write | page | write | ...   64 bits each, big endian

// fill makes p the content of w.
func fill(p []byte, w write) {
	for at := 0; at < len(p); at += 16 {
		binary.BigEndian.PutUint64(p[at:], w.page)
		binary.BigEndian.PutUint64(p[at+8:], w.number)
	}
}

// checkPage reports what is wrong with the content of a page of which the write number least, or a later one, must be
// there. A page that was never written is zeroes. Words of several later writes may stand side by side.
func checkPage(p []byte, page, least uint64) error {
	for at := 0; at < len(p); at += 16 {
		is, number := binary.BigEndian.Uint64(p[at:]), binary.BigEndian.Uint64(p[at+8:])
		switch {
		case number < least:
			return fmt.Errorf("page %d, byte %d: write %d, but %d was flushed", page, at, number, least)
		case number != 0 && is != page, number == 0 && is != 0:
			return fmt.Errorf("page %d, byte %d: holds page %d, write %d", page, at, is, number)
		}
	}
	return nil
}

// verify checks all pages after a cut before which all writes up to flushed were covered by a FLUSH.
func verify(image io.ReaderAt, seed, flushed uint64) (kept int, err error) {
	var least [imagePages]uint64
	for h := newHistory(seed); h.next <= flushed; {
		writes, _ := h.batch()
		for _, w := range writes {
			least[w.page] = w.number
		}
	}
	p := make([]byte, pageBytes)
	for page := range uint64(imagePages) {
		if _, err := image.ReadAt(p, int64(page*pageBytes)); err != nil {
			return 0, fmt.Errorf("reading page %d: %w", page, err)
		}
		if err := checkPage(p, page, least[page]); err != nil {
			return 0, err
		}
		if least[page] > 0 {
			kept++
		}
	}
	return kept, nil
}
