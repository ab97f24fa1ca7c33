package blockcore

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: the index finds the last of the orphans that came before and overlap, whatever their lengths are, and is empty in the end. Method: against a list, with ranges of all
// lengths that come, become orphans and end in random order.
func TestOrphanIndexAgreesWithAList(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var index orphanIndex
		var list []*Ticket // in the order of their coming
		sizeBits := 4 + rng.IntN(40)
		ranges := func() Range {
			length := rng.Int64N(1 << rng.IntN(sizeBits))
			return Range{Offset: rng.Int64N(1<<sizeBits - length), Length: length}
		}
		for n := range 300 {
			k := &Ticket{Range: ranges(), number: uint64(n)}
			list = append(list, k)
			if o := list[rng.IntN(len(list))]; !o.orphan && o.Range.Length > 0 {
				o.orphan = true
				index.add(o)
			}
			for range rng.IntN(3) {
				asks := list[rng.IntN(len(list))]
				require.Same(t, lastOrphan(list, asks), index.last(asks), "seed %d", seed)
			}
			if gone := rng.IntN(len(list)); rng.IntN(3) == 0 {
				if list[gone].orphan {
					index.remove(list[gone])
				}
				list = slices.Delete(list, gone, gone+1)
			}
		}
		for _, k := range list {
			if k.orphan {
				index.remove(k)
			}
		}
		require.Zero(t, index)
	}
}

// lastOrphan is what the index is to find, found by looking at all.
func lastOrphan(list []*Ticket, k *Ticket) *Ticket {
	for _, o := range slices.Backward(list) {
		if o.number < k.number && o.orphan && k.Range.Length > 0 && o.Range.Overlaps(k.Range) {
			return o
		}
	}
	return nil
}

// Goal: who comes where there are orphans elsewhere looks at few of them: the loop is for others, too. Method: 100,000 of one page each, anywhere; no run has more than
// one, or two where they are not aligned.
func TestOrphansElsewhereAreNotLookedAt(t *testing.T) {
	for shift, most := range map[int64]int{0: 1, 512: 2} {
		var index orphanIndex
		for n := range int64(100_000) {
			index.add(&Ticket{Range: Range{Offset: n<<12 + shift, Length: 4096}, number: uint64(n)})
		}
		longest := 0
		for _, run := range index.levels[12] {
			longest = max(longest, len(run))
		}
		require.Equal(t, most, longest)
		require.Nil(t, index.last(&Ticket{Range: Range{Offset: 1 << 40, Length: 4096}, number: 1 << 40}))
	}
}

// BenchmarkBeginBesideOrphans is what a request costs that has nothing to do with the orphans there are.
func BenchmarkBeginBesideOrphans(b *testing.B) {
	const many = 10_000
	c := newTestContext(b, ContextOptions{})
	g, n := newDisk(b, c)
	r, err := g.NewRoot(n, RootOptions{Name: "owner", Writable: true})
	require.NoError(b, err)
	gone := sender("gone")
	var hold WaitQueue
	onLoop(b, c, func() {
		for i := range int64(many) {
			k := &Ticket{Client: &gone, Range: Range{Offset: i << 12, Length: 4096}, Changes: true}
			c.Spawn(BodyFunc(func(t *Task) {
				r.Begin(t, k)
				t.Wait(&hold)
				r.End(t, k)
			}))
		}
		r.Orphan(&gone, many)
	})
	onLoop(b, c, func() {
		k := &Ticket{Range: Range{Offset: many << 12, Length: 4096}, Changes: true}
		body := BodyFunc(func(t *Task) {
			r.Begin(t, k)
			r.End(t, k)
		})
		for b.Loop() {
			c.Spawn(body)
		}
		hold.WakeAll()
	})
	onLoop(b, c, func() {})
	r.Close()
}
