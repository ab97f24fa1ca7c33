package blockcore

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// flatBits is the obvious bitSet.
type flatBits []bool

func (f flatBits) count() (n int64) {
	for _, is := range f {
		if is {
			n++
		}
	}
	return n
}

// Goal: a set of bits has what was put into it, at all lengths and across pages. Method: random operations beside a slice of bool; what is read, found
// and counted is compared after each, and with little memory nothing is missing.
func TestBitSetAgainstAFlatOne(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		memory := int64(1 << 20)
		if seed%3 == 0 {
			memory = rng.Int64N(3 * pageBytes)
		}
		exact := seed%3 != 0
		left := memory
		s := &bitSet{length: 1 + rng.Int64N(3*pageNumbers), memory: &left}
		f := make(flatBits, s.length)
		for range 40 {
			from := rng.Int64N(s.length)
			end := from + 1 + rng.Int64N(1<<rng.IntN(18))
			switch rng.IntN(12) {
			case 0:
				s.resize(1 + rng.Int64N(3*pageNumbers))
				f = append(f, make(flatBits, max(s.length-int64(len(f)), 0))...)[:s.length]
			case 1:
				s.drop()
				clear(f)
			default:
				s.set(from, end)
				for k := from; k < min(end, s.length); k++ {
					f[k] = true
				}
			}
			compareBits(t, s, f, exact)
		}
		s.drop()
		require.Equal(t, memory, left, "seed %d", seed)
	}
}

func compareBits(t *testing.T, s *bitSet, f flatBits, exact bool) {
	t.Helper()
	at := int64(0)
	for at < s.length {
		end := s.next(at, false)
		for k := at; k < end; k++ {
			if exact && !f[k] {
				t.Fatalf("bit %d is set", k)
			}
		}
		at = s.next(end, true)
		for k := end; k < at; k++ {
			if f[k] {
				t.Fatalf("bit %d is missing", k)
			}
		}
	}
	if exact {
		require.Equal(t, f.count(), s.count)
	}
	memory := int64(1 << 20)
	again := &bitSet{length: s.length, memory: &memory}
	p := make([]byte, 512)
	for first := int64(0); first < s.length; first += int64(len(p)) * 8 {
		switch none, all := s.read(p, first); {
		case none:
		case all:
			again.set(first, first+int64(len(p))*8)
		default:
			again.write(p, first)
		}
	}
	require.Equal(t, s.count, again.count)
}

// Goal: bitmaps follow what is written, are merged across granularities, and refuse what QEMU refuses. Method: one list, ranges, what Status tells.
func TestBitmapsOfANode(t *testing.T) {
	size := int64(1<<20 + 512)
	l := NewBitmaps(func() int64 { return size })
	fine, err := l.Add("fine", 9, BitmapState{Enabled: true})
	require.NoError(t, err)
	coarse, err := l.Add("coarse", 16, BitmapState{})
	require.NoError(t, err)
	l.Mark(Range{Offset: 700, Length: 10})
	l.Mark(Range{Offset: 1 << 20, Length: 512})
	lengths, marked := fine.Status(Range{Length: size}, 10)
	require.False(t, marked)
	require.Equal(t, []int64{512, 512, 1<<20 - 1024, 512}, lengths)
	require.Zero(t, coarse.Info().MarkedBytes)
	undo, _, err := coarse.Merge(fine)
	require.NoError(t, err)
	lengths, marked = coarse.Status(Range{Offset: 65000, Length: size - 65000}, 10)
	require.True(t, marked)
	require.Equal(t, []int64{536, 1<<20 - 65536, 512}, lengths)
	undo()
	require.Zero(t, coarse.Info().MarkedBytes)
	undo, drop, err := fine.Clear()
	require.NoError(t, err)
	l.Mark(Range{Length: 1})
	undo()
	require.EqualValues(t, 3*512, fine.Info().MarkedBytes)
	require.NoError(t, fine.Acquire())
	require.ErrorContains(t, fine.Remove(), "Bitmap 'fine' is currently in use by another operation and cannot be used")
	l.Mark(Range{Offset: 4096, Length: 1})
	require.EqualValues(t, 4*512, fine.Info().MarkedBytes)
	fine.Release()
	size = 1 << 12
	require.EqualValues(t, 2*512, fine.Info().MarkedBytes)
	require.NoError(t, fine.Remove())
	fine.Forget()
	require.ErrorContains(t, fine.Remove(), "Dirty bitmap 'fine' not found")
	drop()
	require.EqualValues(t, bitmapMemoryMax, l.memory)
	_, err = l.Add("coarse", 16, BitmapState{})
	require.ErrorContains(t, err, "Bitmap already exists: coarse")
	size = 1 << 62
	_, err = l.Add("huge", 9, BitmapState{})
	require.ErrorContains(t, err, "Use larger granularity")
	require.EqualValues(t, size, coarse.Info().MarkedBytes) // it cannot follow, and misses nothing
}

// Goal: a merge that is undone leaves what was marked before and what was written meanwhile, and nothing else. Method: two merges, undone in reverse.
func TestMergeIsUndone(t *testing.T) {
	l := NewBitmaps(func() int64 { return 1 << 20 })
	var all []*Bitmap
	for i := range 3 {
		b, err := l.Add(string(rune('a'+i)), 9, BitmapState{Enabled: i == 0})
		require.NoError(t, err)
		b.SetBits(int64(10*i), int64(10*i+1))
		all = append(all, b)
	}
	first, _, err := all[0].Merge(all[1])
	require.NoError(t, err)
	l.Mark(Range{Offset: 512 * 30, Length: 512})
	second, _, err := all[0].Merge(all[2])
	require.NoError(t, err)
	l.Mark(Range{Offset: 512 * 40, Length: 512})
	require.EqualValues(t, 5*512, all[0].Info().MarkedBytes)
	second()
	first()
	require.EqualValues(t, 3*512, all[0].Info().MarkedBytes)
	for _, at := range []int64{0, 30, 40} {
		_, marked := all[0].Status(Range{Offset: at * 512, Length: 1}, 1)
		require.True(t, marked)
	}
	require.EqualValues(t, bitmapMemoryMax-all[0].pagesTaken()-all[1].pagesTaken()-all[2].pagesTaken(), l.memory)
}

// pagesTaken is the memory that a bitmap has, in bytes.
func (b *Bitmap) pagesTaken() (n int64) {
	n = int64(len(b.set.pages)) * entryBytes
	for _, p := range b.set.pages {
		if p != nil && p != fullPage {
			n += pageBytes
		}
	}
	return n
}
