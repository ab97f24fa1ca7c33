package membuf

import (
	"bytes"
	"sync"
	"unsafe"

	"nbd-dataplane/internal/check"
)

const (
	// poisonNew fills a buffer that is handed out: contents are undefined and nobody shall
	// take zeroes for granted.
	poisonNew = 0xdb
	// poisonIdle fills the first page of an idle buffer. Whatever else is found there when it is
	// handed out again was written by somebody who had given it back, the kernel included.
	poisonIdle = 0xdd
)

// ledger remembers, in check builds, which buffers are out.
type ledger struct {
	mu sync.Mutex
	// Guarded by mu.
	out map[*byte]int // capacity by start
}

// lent enters b, which is handed out.
func (l *ledger) lent(b []byte) {
	start := unsafe.SliceData(b)
	check.Invariant(untouched(b[:pageBytes]), "membuf: buffer at %p was written to while it was idle", start)
	poison(b, poisonNew)
	l.mu.Lock()
	defer l.mu.Unlock()
	_, twice := l.out[start]
	check.Invariant(!twice, "membuf: buffer at %p was handed out twice", start)
	if l.out == nil {
		l.out = make(map[*byte]int)
	}
	l.out[start] = cap(b)
}

// returned strikes out b, which comes back.
func (l *ledger) returned(b []byte) {
	start := unsafe.SliceData(b)
	l.mu.Lock()
	size, found := l.out[start]
	delete(l.out, start)
	l.mu.Unlock()
	check.Invariant(found, "membuf: buffer at %p was put twice, or is not the start of one", start)
	check.Invariant(size == cap(b), "membuf: buffer at %p of %d bytes was put as one of %d", start, size, cap(b))
	poison(b[:pageBytes], poisonIdle)
}

// poison fills b with v, doubling what is filled: a loop over bytes is slow under the race detector.
func poison(b []byte, v byte) {
	b[0] = v
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// untouched reports whether page is as returned or the kernel left it: all poison, or all zero.
func untouched(page []byte) bool {
	first := page[0]
	return (first == poisonIdle || first == 0) && bytes.Count(page, page[:1]) == len(page)
}
