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
	turn uint64 // of Image.writing
}

// inPlace is the epochs of a write to the places that L2 entries have.
type inPlace struct{ grace, writing uint8 }

// enterInPlace counts such a write in, before it looks up where to go.
func (i *Image) enterInPlace() inPlace { return inPlace{i.grace.enter(), i.writing.enter()} }

func (i *Image) exitInPlace(p inPlace) {
	i.grace.exit(p.grace)
	i.writing.exit(p.writing)
}

// keep notes that what is in the places of r does not count from now on.
func (i *Image) keep(r blockcore.Range) {
	if i.writing.idle() {
		i.kept = i.kept[:0]
		return
	}
	current := slices.IndexFunc(i.kept, func(k keptPlace) bool { return !i.writing.isOver(k.turn) })
	if current < 0 {
		current = len(i.kept)
	}
	i.kept = slices.Delete(i.kept, 0, current)
	last, turn := len(i.kept)-1, i.writing.turn
	switch {
	case last >= 0 && i.kept[last].turn == turn && i.kept[last].End() == r.Offset:
		i.kept[last].Length += r.Length
	case last+1 == keptMax:
		i.kept = append(i.kept[:0], keptPlace{blockcore.Range{Length: math.MaxInt64}, turn})
	default:
		i.kept = append(i.kept, keptPlace{r, turn})
	}
}

// awaitKept waits until no write is on its way to the places of r that was before their contents ceased to count. Nobody changes the entries of r meanwhile.
func (i *Image) awaitKept(t *blockcore.Task, r blockcore.Range) {
	for _, k := range slices.Backward(i.kept) {
		if k.Overlaps(r) {
			i.writing.await(t, k.turn)
			return
		}
	}
}
