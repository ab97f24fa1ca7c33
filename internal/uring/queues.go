package uring

import (
	"sync/atomic"
	"unsafe"
)

// submissions is our end of the submission queue: we produce at the tail, the kernel consumes
// at the head, and only while we are inside io_uring_enter.
type submissions struct {
	// Immutable.
	khead  *uint32 // shared with the kernel, which moves it
	ktail  *uint32 // shared with the kernel, moved by us
	kflags *uint32 // shared with the kernel, which sets it
	mask   uint32
	sqes   []SQE // shared with the kernel

	// Owned by the context.
	tail uint32 // what ktail will be at the next publish
}

// next returns the next free entry, cleared, or nil when all are pending.
func (q *submissions) next() *SQE {
	if q.pending() == uint32(len(q.sqes)) {
		return nil
	}
	s := &q.sqes[q.tail&q.mask]
	*s = SQE{}
	q.tail++
	return s
}

// pending is the number of entries that the kernel has not taken. The difference is right across
// the wrap of the indices.
func (q *submissions) pending() uint32 {
	return q.tail - atomic.LoadUint32(q.khead)
}

// publish shows the kernel all entries and returns how many are pending.
func (q *submissions) publish() uint32 {
	atomic.StoreUint32(q.ktail, q.tail)
	return q.pending()
}

// raised reports whether the kernel has set one of flags.
func (q *submissions) raised(flags uint32) bool {
	return atomic.LoadUint32(q.kflags)&flags != 0
}

// completions is our end of the completion queue: the kernel produces at the tail, we consume at
// the head.
type completions struct {
	// Immutable.
	khead *uint32 // shared with the kernel, moved by us
	ktail *uint32 // shared with the kernel, which moves it
	mask  uint32
	cqes  []CQE // shared with the kernel

	// Owned by the context.
	head uint32 // as in khead
}

// ready reports whether there is something to take. INVARIANT: the tail is never behind the
// head, so "not equal" is "ahead", across the wrap as well; "less" would not be.
func (q *completions) ready() bool {
	return q.head != atomic.LoadUint32(q.ktail)
}

// take copies completions to out and frees their places with one store.
func (q *completions) take(out []CQE) int {
	n := min(int(atomic.LoadUint32(q.ktail)-q.head), len(out))
	if n == 0 {
		return 0
	}
	for i := range out[:n] {
		out[i] = q.cqes[(q.head+uint32(i))&q.mask]
	}
	q.head += uint32(n)
	atomic.StoreUint32(q.khead, q.head)
	return n
}

// at returns a pointer off bytes into a mapping.
func at[T any](base unsafe.Pointer, off uint32) *T {
	return (*T)(unsafe.Add(base, off))
}

func newSubmissions(ring, sqes unsafe.Pointer, p *setupParams) submissions {
	o := &p.sqOff
	q := submissions{
		khead:  at[uint32](ring, o.head),
		ktail:  at[uint32](ring, o.tail),
		kflags: at[uint32](ring, o.flags),
		mask:   *at[uint32](ring, o.ringMask),
		sqes:   unsafe.Slice((*SQE)(sqes), p.sqEntries),
	}
	q.tail = atomic.LoadUint32(q.ktail)
	if p.flags&setupNoSQArray == 0 {
		// The array is a level of indirection we do not want: place i is entry i, for ever.
		for i := range p.sqEntries {
			*at[uint32](ring, o.array+4*i) = i
		}
	}
	return q
}

func newCompletions(ring unsafe.Pointer, p *setupParams) completions {
	o := &p.cqOff
	q := completions{
		khead: at[uint32](ring, o.head),
		ktail: at[uint32](ring, o.tail),
		mask:  *at[uint32](ring, o.ringMask),
		cqes:  unsafe.Slice(at[CQE](ring, o.cqes), p.cqEntries),
	}
	q.head = atomic.LoadUint32(q.khead)
	return q
}
