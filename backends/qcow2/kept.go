package qcow2

import (
	"math"
	"slices"

	"nbd-dataplane/blockcore"
)

// keptMax is how many ranges are told apart. More of them are one.
const keptMax = 1024

// keptPlaces are ranges of the disk whose clusters stay where they are in the file, though what they hold has ceased to count. A write that went to one of them before
// may be on its way still, and if it arrives after what is written there next, it comes to light with that: zeroes that were answered, and read, would be gone. Owned by the
// context.
//
//	write        |---------- on its way to the place ------------|
//	zeroes          |- entry: zero, place kept -|
//	next write                                     |- fills the place ... entry: data -|
type keptPlaces []keptPlace // the last one last

type keptPlace struct {
	blockcore.Range
	turn uint64 // of grace
}

// keep notes that what is in the places of r does not count from now on.
func (i *Image) keep(r blockcore.Range) {
	i.grace.advance()
	if i.grace.idle() {
		i.kept = i.kept[:0]
		return
	}
	over := slices.IndexFunc(i.kept, func(k keptPlace) bool { return !i.grace.isOver(k.turn) })
	if over < 0 {
		over = len(i.kept)
	}
	i.kept = slices.Delete(i.kept, 0, over)
	last := len(i.kept) - 1
	switch {
	case last >= 0 && i.kept[last].turn == i.grace.turn && i.kept[last].End() == r.Offset:
		i.kept[last].Length += r.Length
	case last+1 == keptMax:
		i.kept = append(i.kept[:0], keptPlace{blockcore.Range{Length: math.MaxInt64}, i.grace.turn})
	default:
		i.kept = append(i.kept, keptPlace{r, i.grace.turn})
	}
}

// awaitKept waits until nothing is on its way to the places of r that was before their contents ceased to count. Nobody changes the entries of r meanwhile.
func (i *Image) awaitKept(t *blockcore.Task, r blockcore.Range) {
	for _, k := range slices.Backward(i.kept) {
		if k.Overlaps(r) {
			i.grace.await(t, k.turn)
			return
		}
	}
}
