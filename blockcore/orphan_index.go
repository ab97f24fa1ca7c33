package blockcore

import (
	"cmp"
	"math/bits"
	"slices"
)

// orphanIndex finds orphans by what they change: clients can leave a hundred thousand behind, and who comes then is not to look at each of them. The zero value is
// empty. Owned by the context.
//
//	level 12  |    run 5    |    run 6    |   an orphan is in the first level whose runs are as long as its
//	                    [orphan)              range or longer, in the one or two of them that it touches
type orphanIndex struct {
	count  int
	used   uint64 // bit n: there are some in level n
	levels [64]map[int64]orphanRun
}

// orphanRun is the orphans that touch one run, in the order of their coming.
type orphanRun []*Ticket

// level returns the one that r, which is not empty, belongs to.
func (r Range) level() int { return bits.Len64(uint64(r.Length - 1)) }

// runs returns the first and the last run of a level that r touches.
func (r Range) runs(level int) (first, last int64) { return r.Offset >> level, (r.End() - 1) >> level }

func (x *orphanIndex) add(k *Ticket) {
	x.count++
	level := k.Range.level()
	x.used |= 1 << level
	if x.levels[level] == nil {
		x.levels[level] = map[int64]orphanRun{}
	}
	first, last := k.Range.runs(level)
	for n := first; n <= last; n++ {
		run := x.levels[level][n]
		x.levels[level][n] = slices.Insert(run, run.after(k), k)
	}
}

func (x *orphanIndex) remove(k *Ticket) {
	x.count--
	level := k.Range.level()
	first, last := k.Range.runs(level)
	for n := first; n <= last; n++ {
		run := x.levels[level][n]
		at := run.after(k)
		if at == 0 { // as a rule they end in order, and there may be very many
			run[0] = nil
			run = run[1:]
		} else {
			run = slices.Delete(run, at, at+1)
		}
		if len(run) > 0 {
			x.levels[level][n] = run
		} else {
			delete(x.levels[level], n)
		}
	}
	if len(x.levels[level]) == 0 {
		x.levels[level] = nil
		x.used &^= 1 << level
	}
}

// last returns the last orphan that came before k and changes what k is about, or nil.
func (x *orphanIndex) last(k *Ticket) (last *Ticket) {
	if k.Range.Length == 0 {
		return nil
	}
	for used := x.used; used != 0; used &= used - 1 {
		level := bits.TrailingZeros64(used)
		runs := x.levels[level]
		begin, end := k.Range.runs(level)
		if end-begin >= int64(len(runs)) {
			for _, run := range runs {
				last = later(last, run.last(k))
			}
			continue
		}
		for n := begin; n <= end; n++ {
			last = later(last, runs[n].last(k))
		}
	}
	return last
}

func (run orphanRun) last(k *Ticket) *Ticket {
	for _, o := range slices.Backward(run[:run.after(k)]) {
		if o.Range.Overlaps(k.Range) {
			return o
		}
	}
	return nil
}

// after returns how many came before k.
func (run orphanRun) after(k *Ticket) int {
	at, _ := slices.BinarySearchFunc(run, k.number, func(o *Ticket, number uint64) int { return cmp.Compare(o.number, number) })
	return at
}

// later returns the one of two that came last; nil = there is none.
func later(a, b *Ticket) *Ticket {
	if a == nil || b != nil && b.number > a.number {
		return b
	}
	return a
}
